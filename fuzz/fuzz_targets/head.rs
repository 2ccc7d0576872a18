#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| beast::http::fuzz::head(bytes));
