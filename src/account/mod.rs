//! Keys, tiers and who may ask.
