use super::help::omr;

/// Exit status and stderr of a command that must fail.
fn failure(args: &[&str]) -> (i32, String) {
    let output = omr().args(args).output().unwrap();
    assert!(output.stdout.is_empty(), "{args:?} wrote to stdout");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_unknown_command_or_flag_is_exit_status_2() {
    let (code, text) = failure(&["docter"]);
    assert!(code == 2 && text.contains("doctor"), "{code}: {text}");
    let (code, _) = failure(&["doctor", "--nonsense"]);
    assert_eq!(code, 2);
    let (code, text) = failure(&["--device", "cuda", "doctor"]);
    assert!(code == 2 && text.contains("auto, cpu"), "{code}: {text}");
}
