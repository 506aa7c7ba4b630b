//! Reads JSON lines from stdin, for several commands, and writes one line to stdout for each of them, in the same
//! order.
//!
//! A thread reads ahead. All lines that have arrived are processed together, on all cores. Therefore an interactive
//! client gets each answer at once, and a whole file is processed at full speed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::stdout::{Stdout, try_write};
use omr_base::error::{Error, Result};

/// Maximum number of bytes that are read at once.
const BLOCK_BYTES: usize = 1 << 18;
/// Maximum number of bytes of a line.
const LONGEST: u64 = 64 << 20;
/// Maximum number of blocks that are read ahead, and of a batch.
const AHEAD: usize = 64;
/// A batch with this number of lines gets no more blocks. With a judge, a batch ends only when its last line is answered.
const BATCH_LINES: usize = 4096;

/// Lines with their numbers, from 1. Blank lines are left out.
type Block = Vec<(usize, Vec<u8>)>;

/// A line of stdin.
pub(super) struct Line<In> {
    /// Position of the line, for messages.
    pub(super) place: String,
    /// Parsed value of the line.
    pub(super) value: In,
}

/// Processes the lines of stdin, many at a time. `expected` describes the keys of a line. `all` must return one result
/// per line, in the same order. An invalid line ends the command with an error that contains its number, and so does the
/// first error of `all`. The results before it are written.
pub(super) fn answer<In: DeserializeOwned + Send, Out: Serialize>(
    expected: &str,
    all: impl FnMut(Vec<Line<In>>) -> Vec<Result<Out>>,
) -> Result<()> {
    filter(io::stdin(), Stdout::lock(), expected, all)
}

fn filter<In: DeserializeOwned + Send, Out: Serialize>(
    input: impl Read + Send + 'static,
    mut output: impl Write,
    expected: &str,
    mut all: impl FnMut(Vec<Line<In>>) -> Vec<Result<Out>>,
) -> Result<()> {
    let (send, blocks) = sync_channel(AHEAD);
    // The thread is not joined, because it may be blocked on input that is no longer needed.
    std::thread::spawn(move || {
        let (mut input, mut number) = (BufReader::with_capacity(BLOCK_BYTES, input), 0);
        while let Some(block) = next(&mut input, &mut number).transpose() {
            if send.send(block).is_err() {
                return;
            }
        }
    });
    while let Ok(first) = blocks.recv() {
        let mut batch = Vec::new();
        for block in std::iter::once(first).chain(blocks.try_iter().take(AHEAD - 1)) {
            batch.extend(block.map_err(Error::io("standard input"))?);
            if batch.len() >= BATCH_LINES {
                break;
            }
        }
        let parse = |(number, line): &(usize, Vec<u8>)| match serde_json::from_slice::<In>(line.trim_ascii()) {
            Ok(value) => Ok(Line { place: place(*number), value }),
            Err(error) => Err(Error::input(place(*number), found(&error), expected)),
        };
        let mut failure = None;
        let parsed = batch.par_iter().map(parse).collect::<Vec<_>>().into_iter();
        let lines = parsed.map_while(|line| line.map_err(|error| failure = Some(error)).ok()).collect();
        let mut out = Vec::new();
        for answer in all(lines).into_iter().map_while(|one| one.map_err(|error| failure = Some(error)).ok()) {
            serde_json::to_writer(&mut out, &answer).map_err(|e| Error::Failed(e.to_string()))?;
            out.push(b'\n');
        }
        if !try_write(&mut output, &out)? {
            return Ok(());
        }
        failure.map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// Waits for a line and returns it with all complete lines that have arrived. Returns `None` at the end. `number` is the
/// number of lines before.
fn next(input: &mut BufReader<impl Read>, number: &mut usize) -> io::Result<Option<Block>> {
    let mut lines = Vec::new();
    // The rest of an incomplete line may arrive late, so the lines before it do not wait for it.
    while lines.is_empty() || input.buffer().contains(&b'\n') {
        let mut line = Vec::new();
        if input.by_ref().take(LONGEST + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        *number += 1;
        if line.len() as u64 > LONGEST {
            let what = format!("line {number} is longer than {LONGEST} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if !line.trim_ascii().is_empty() {
            lines.push((*number, line));
        }
    }
    Ok((!lines.is_empty()).then_some(lines))
}

fn place(number: usize) -> String {
    format!("standard input, line {number}")
}

/// Returns the parser's message. The parser sees a single line, so its line number is removed.
fn found(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at character ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(input: &[u8]) -> (Result<()>, String) {
        let mut out = Vec::new();
        let double = |lines: Vec<Line<f64>>| lines.into_iter().map(|line| Ok(line.value * 2.0)).collect();
        let result = filter(io::Cursor::new(input.to_vec()), &mut out, "a number", double);
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn answers_in_order_and_skips_blank_lines() {
        let (result, out) = run(b"1\n\n 2.5 \r\n3");
        assert!(result.is_ok());
        assert_eq!(out, "2.0\n5.0\n6.0\n");
        let many: String = (0..20_000).map(|i| format!("{i}\n")).collect();
        let want: String = (0..20_000).map(|i| format!("{}.0\n", 2 * i)).collect();
        assert_eq!(run(many.as_bytes()).1, want);
    }

    #[test]
    fn a_line_that_is_too_long_is_named() {
        let long = [b"1\n", &b" ".repeat(LONGEST as usize + 1)[..]].concat();
        let (result, out) = run(&long);
        assert!(result.unwrap_err().to_string().contains("line 2 is longer than"));
        assert_eq!(out, "2.0\n");
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

    #[test]
    fn an_answer_that_fails_ends_after_those_before_it() {
        let mut out = Vec::new();
        let odd = |line: Line<u64>| match line.value % 2 {
            0 => Err(Error::Failed(format!("{} is even", line.place))),
            _ => Ok(line.value),
        };
        let all = |lines: Vec<Line<u64>>| lines.into_iter().map(odd).collect();
        let error = filter(&b"1\n3\n4\n5\n"[..], &mut out, "a number", all).unwrap_err();
        assert_eq!(error.to_string(), "standard input, line 3 is even");
        assert_eq!(out, b"1\n3\n");
    }
}
