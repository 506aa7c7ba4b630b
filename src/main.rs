//! The omr binary.

fn main() -> std::process::ExitCode {
    omr::cli::main()
}
