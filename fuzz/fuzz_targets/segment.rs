#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| beast::ledger::fuzz::segment(bytes));
