#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| towline_core::fuzzing::run("pipe_msgpack", data));
