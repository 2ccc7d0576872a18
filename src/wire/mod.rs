//! The UDP protocols: views over received bytes and writers of answers; pure.
