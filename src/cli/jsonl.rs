//! Commands that read JSON lines on stdin and write one line for each to stdout, in the same order.

use std::io::{BufRead, BufReader, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::signal;
use crate::error::{Error, Result};

/// Answers every line of stdin. `expected` names a line's keys. A line that cannot be read ends the command with
/// an error that names its number; the lines before it are answered.
pub(super) fn answer<In: DeserializeOwned, Out: Serialize>(expected: &str, each: impl Fn(In) -> Out) -> Result<()> {
    // Nothing is kept between lines, so the first signal may end the process.
    signal::end_at_once();
    filter(std::io::stdin().lock(), std::io::stdout().lock(), expected, each)
}

fn filter<In: DeserializeOwned, Out: Serialize>(
    input: impl std::io::Read,
    mut output: impl Write,
    expected: &str,
    each: impl Fn(In) -> Out,
) -> Result<()> {
    let mut input = BufReader::new(input);
    let (mut line, mut out, mut number) = (Vec::new(), Vec::new(), 0usize);
    loop {
        line.clear();
        number += 1;
        let read = input.read_until(b'\n', &mut line).map_err(Error::io("standard input"))?;
        let mut failure = None;
        if !line.trim_ascii().is_empty() {
            match serde_json::from_slice::<In>(line.trim_ascii()) {
                Ok(value) => {
                    serde_json::to_writer(&mut out, &each(value)).map_err(|e| Error::Failed(e.to_string()))?;
                    out.push(b'\n');
                }
                Err(error) => failure = Some(Error::input(place(number), found(&error), expected)),
            }
        }
        // Written when there is nothing more to read at once: whole pipes are fast, a waiting partner is served.
        if read == 0 || failure.is_some() || input.buffer().is_empty() || out.len() > 1 << 16 {
            match output.write_all(&out).and_then(|()| output.flush()) {
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                other => other.map_err(Error::io("standard output"))?,
            }
            out.clear();
        }
        match failure {
            Some(error) => return Err(error),
            None if read == 0 => return Ok(()),
            None => {}
        }
    }
}

fn place(number: usize) -> String {
    format!("standard input, line {number}")
}

/// The parser's word; its "line" is always this one line.
fn found(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at character ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(input: &[u8]) -> (Result<()>, String) {
        let mut out = Vec::new();
        let result = filter(input, &mut out, "a number", |x: f64| x * 2.0);
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn answers_in_order_and_skips_blank_lines() {
        let (result, out) = run(b"1\n\n 2.5 \r\n3");
        assert!(result.is_ok());
        assert_eq!(out, "2.0\n5.0\n6.0\n");
    }

    #[test]
    fn a_bad_line_is_named_and_the_lines_before_it_are_answered() {
        for bad in [&b"1\nx\n3\n"[..], b"1\n\xff\n", b"1\n{\"a\":\n"] {
            let (result, out) = run(bad);
            let error = result.unwrap_err();
            assert!(error.to_string().contains("line 2") && error.exit_code() == 2, "{error}");
            assert_eq!(out, "2.0\n");
        }
    }
}
