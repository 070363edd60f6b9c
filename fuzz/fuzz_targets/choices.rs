#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paxos_lab::fuzz::choices(bytes));
