//! Reads JSON lines from stdin, for several commands, and writes one line to stdout for each of them, in the same
//! order.
//!
//! A thread reads ahead. All lines that have arrived are processed together on all cores. Therefore an interactive
//! client gets each answer at once, and a whole file is processed at full speed.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rayon::prelude::*;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stdout::Stdout;
use crate::error::{Error, Result};

/// Maximum number of lines per batch. With a judge, a batch ends only when its last line is answered.
const BATCH_LINES: usize = 4096;
/// Maximum number of bytes per batch, plus at most one line.
const BATCH_BYTES: usize = 16 << 20;
/// Number of blocks of lines that are read ahead.
const AHEAD: usize = 8;

/// Deserializes a text, or a number as text, because labels in files of other programs are often numbers.
pub(super) fn text<'de, D: serde::Deserializer<'de>>(value: D) -> std::result::Result<String, D::Error> {
    match Value::deserialize(value)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(D::Error::custom(format!("{other}, expected a string or a number"))),
    }
}

/// A line of stdin.
pub(super) struct Line<In> {
    /// Position of the line, for messages.
    pub(super) place: String,
    /// Parsed value of the line.
    pub(super) value: In,
}

/// Processes every line of stdin. `expected` describes the keys of a line. An invalid line ends the command with an
/// error that contains its number. The lines before it are answered.
pub(super) fn answer<In, Out>(expected: &str, each: impl Fn(In) -> Out + Sync) -> Result<()>
where
    In: DeserializeOwned + Send,
    Out: Serialize + Send,
{
    answer_many(expected, |lines| lines.into_par_iter().map(|line: Line<In>| Ok(each(line.value))).collect())
}

/// Processes many lines at a time, like [`answer`]. `all` must return one result per line, in the same order. The first
/// error ends the command after the results before it are written.
pub(super) fn answer_many<In, Out>(expected: &str, all: impl FnMut(Vec<Line<In>>) -> Vec<Result<Out>>) -> Result<()>
where
    In: DeserializeOwned + Send,
    Out: Serialize,
{
    filter(std::io::stdin(), Stdout::lock(), expected, all)
}

/// Lines with their numbers, from 1. Blank lines are left out.
type Block = Vec<(usize, Vec<u8>)>;

fn filter<In, Out>(
    input: impl Read + Send + 'static,
    mut output: impl Write,
    expected: &str,
    mut all: impl FnMut(Vec<Line<In>>) -> Vec<Result<Out>>,
) -> Result<()>
where
    In: DeserializeOwned + Send,
    Out: Serialize,
{
    let (send, blocks) = sync_channel(AHEAD);
    // The thread is not joined, because it may be blocked on input that is no longer needed.
    std::thread::spawn(move || read(BufReader::with_capacity(1 << 18, input), &send));
    while let Some(batch) = next(&blocks)? {
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
        match output.write_all(&out).and_then(|()| output.flush()) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.map_err(Error::io("standard output"))?,
        }
        failure.map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// Sends the input in blocks. A block is sent as soon as reading would block.
fn read(mut input: BufReader<impl Read>, send: &SyncSender<std::io::Result<Block>>) {
    let (mut block, mut bytes, mut number) = (Block::new(), 0, 0);
    loop {
        number += 1;
        let mut line = Vec::new();
        let read = match input.read_until(b'\n', &mut line) {
            Ok(read) => read,
            Err(error) => {
                let _ = send.send(Ok(block)).and_then(|()| send.send(Err(error)));
                return;
            }
        };
        bytes += read;
        if !line.trim_ascii().is_empty() {
            block.push((number, line));
        }
        if (read == 0 || input.buffer().is_empty() || bytes > BATCH_BYTES / AHEAD || block.len() >= BATCH_LINES / AHEAD)
            && !block.is_empty()
        {
            bytes = 0;
            if send.send(Ok(std::mem::take(&mut block))).is_err() {
                return;
            }
        }
        if read == 0 {
            return;
        }
    }
}

/// Waits for a block and adds all blocks that have arrived. Returns `None` at the end.
fn next(blocks: &Receiver<std::io::Result<Block>>) -> Result<Option<Block>> {
    let Ok(first) = blocks.recv() else { return Ok(None) };
    let mut batch = first.map_err(Error::io("standard input"))?;
    let size = |block: &Block| block.iter().map(|(_, line)| line.len()).sum::<usize>();
    let mut bytes = size(&batch);
    while batch.len() < BATCH_LINES && bytes < BATCH_BYTES {
        let Ok(block) = blocks.try_recv() else { break };
        let block = block.map_err(Error::io("standard input"))?;
        bytes += size(&block);
        batch.extend(block);
    }
    Ok(Some(batch))
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
        let result = filter(std::io::Cursor::new(input.to_vec()), &mut out, "a number", double);
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
