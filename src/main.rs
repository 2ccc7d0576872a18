//! The command line of beast.

fn main() {}
