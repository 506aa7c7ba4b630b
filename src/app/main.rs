//! The omr program: calls `omr::cli::main`.

fn main() -> std::process::ExitCode {
    omr::cli::main()
}
