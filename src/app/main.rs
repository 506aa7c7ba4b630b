//! The omr program: calls `omr_app::cli::main`.

fn main() -> std::process::ExitCode {
    omr_app::cli::main()
}
