#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tophash_fuzz::log(data));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    eprintln!("built without a fuzzer: see tests/fuzz/README.md");
    std::process::ExitCode::from(2)
}
