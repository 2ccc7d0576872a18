#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| beast::report::fuzz::report_cursor(bytes));
