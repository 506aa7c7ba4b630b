//! Reads rows from JSON files: one object per line, objects over several lines, or one array or object of objects. None is
//! loaded into memory as a whole.

use std::fmt;
use std::io::{BufRead, BufReader, Read as _, Seek, SeekFrom};
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use crate::rows::files::content::{Content, Shared};
use crate::text::exact;
use omr_base::error::{Error, Result};

/// Maximum length of a row in bytes: a guard against files that do not contain rows.
const LONGEST: usize = 256 << 20;

/// Maximum number of JSON values in a row. Each value takes tens of bytes in memory, even if it is one character in the
/// file.
const MOST_VALUES: usize = 1 << 22;

/// Layout of the objects in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// One object per line.
    Lines,
    /// Objects over several lines, one after the other.
    Objects,
    /// One array of objects.
    Array,
    /// One object of objects. The names are the ids of the rows.
    Map,
}

/// Position of an object in a file.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Number of the object, from 0.
    pub index: usize,
    /// Number of the line that contains the object, from 1. In an array: number of the element, from 1.
    pub number: usize,
    /// Byte at which the object begins.
    pub offset: u64,
}

impl Layout {
    /// Detects the layout of a file from its first row, or from all rows if it is an object of objects.
    pub fn of(file: &Content) -> Result<Layout> {
        let mut reader = BufReader::new(file.reader()?);
        let start = without_mark(reader.fill_buf().map_err(Error::io(&file.path))?).trim_ascii_start();
        if start.starts_with(b"[") {
            return Ok(Layout::Array);
        }
        let (mut rows, mut bytes, mut count) = (Elements::begin(file, Layout::Map, 0)?, Vec::new(), 0);
        // If the file is no object of objects, reading its rows reports what is wrong with them.
        while let Ok(row) = rows.next(&mut bytes) {
            match row {
                Some(_) if bytes.starts_with(b"{") => count += 1,
                None if count > 0 => return Ok(Layout::Map),
                _ => break,
            }
        }
        let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Ok(if first.trim_ascii() == b"{" { Layout::Objects } else { Layout::Lines })
    }

    /// Passes each of the first `limit` objects to `take`, in order, with its position and its fields or error.
    pub(crate) fn read(
        self,
        file: &Content,
        limit: usize,
        mut take: impl FnMut(Line, Result<Map<String, Value>>) -> Result<()>,
    ) -> Result<()> {
        if self == Layout::Lines {
            return lines(file, limit, take);
        }
        let (mut rows, mut bytes, mut index) = (Elements::begin(file, self, 0)?, Vec::new(), 0);
        while index < limit
            && let Some(offset) = rows.next(&mut bytes)?
        {
            let number = index + 1;
            take(Line { index, number, offset }, rows.fields(&format!("row {number}"), &bytes))?;
            index += 1;
        }
        Ok(())
    }

    /// Reads the object that begins at byte `offset`. `place` names it in errors.
    pub fn object(self, file: &Content, offset: u64, place: &str) -> Result<Result<Map<String, Value>>> {
        let (mut rows, mut bytes) = (Elements::begin(file, self, offset)?, Vec::new());
        if self == Layout::Lines {
            let line = (&mut rows.reader).take(LONGEST as u64).read_until(b'\n', &mut bytes);
            line.map_err(Error::io(&file.path))?;
        } else {
            rows.next(&mut bytes)?;
        }
        let bytes = if offset == 0 { without_mark(&bytes) } else { &bytes };
        Ok(rows.fields(place, bytes))
    }
}

/// Passes each of the first `limit` objects of a JSON lines file to `take`, with its position and its fields or error.
/// Skips blank lines.
pub fn jsonl(
    path: &Path,
    limit: usize,
    take: impl FnMut(Line, Result<Map<String, Value>>) -> Result<()>,
) -> Result<()> {
    lines(&Content::from(path), limit, take)
}

fn lines(
    file: &Content,
    limit: usize,
    mut take: impl FnMut(Line, Result<Map<String, Value>>) -> Result<()>,
) -> Result<()> {
    let path = &file.path;
    let mut reader = BufReader::with_capacity(1 << 20, file.reader()?);
    let (mut line, mut at, mut next) = (Vec::new(), Line { index: 0, number: 0, offset: 0 }, 0);
    while at.index < limit {
        line.clear();
        let mut limited = (&mut reader).take(LONGEST as u64 + 1);
        let read = limited.read_until(b'\n', &mut line).map_err(Error::io(path))?;
        if read == 0 {
            break;
        }
        (at.number, at.offset, next) = (at.number + 1, next, next + read as u64);
        if line.len() > LONGEST {
            return Err(Error::format(path, format!("line {} is longer than {LONGEST} bytes", at.number)));
        }
        let bytes = if at.number == 1 { without_mark(&line) } else { &line };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        take(at, parse(path, &format!("line {}", at.number), bytes))?;
        at.index += 1;
    }
    Ok(())
}

/// Reads the elements of an array or object, or objects one after the other, as bytes.
struct Elements<'a> {
    reader: BufReader<Shared>,
    /// Number of bytes read.
    at: u64,
    path: &'a Path,
    layout: Layout,
    /// True once the opening bracket has been read.
    begun: bool,
    /// Name of the last element of an object.
    name: Vec<u8>,
}

impl Elements<'_> {
    /// Begins at byte `at`, which is 0 or the first byte of an element.
    fn begin(file: &Content, layout: Layout, at: u64) -> Result<Elements<'_>> {
        let path = &file.path;
        let capacity = if at == 0 { 1 << 20 } else { 1 << 14 };
        let mut reader = BufReader::with_capacity(capacity, file.reader()?);
        reader.seek(SeekFrom::Start(at)).map_err(Error::io(path))?;
        Ok(Elements { reader, at, path, layout, begun: at > 0 || layout == Layout::Objects, name: Vec::new() })
    }

    /// Reads the next element into `out` and returns the byte at which it begins, or `None` at the end.
    fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<u64>> {
        let first = loop {
            match self.skip()? {
                Some(b'[' | b'{') if !self.begun => self.begun = true,
                Some(end @ (b']' | b'}')) if self.layout != Layout::Objects => {
                    let (at, closes) = (self.at, (end == b']') == (self.layout == Layout::Array));
                    if closes && self.skip()?.is_none() {
                        return Ok(None);
                    }
                    return Err(Error::format(self.path, format!("text after the end of its rows, at byte {at}")));
                }
                // Skips the byte order mark and commas between elements.
                Some(b',' | 0xef | 0xbb | 0xbf) => {}
                Some(byte) => break byte,
                None if self.layout == Layout::Objects => return Ok(None),
                None => return Err(self.cut()),
            }
        };
        let offset = self.at - 1;
        self.value(first, out)?;
        if self.layout == Layout::Map {
            std::mem::swap(&mut self.name, out);
            let after = self.skip()?;
            let first = if after == Some(b':') { self.skip()? } else { after };
            self.value(first.ok_or_else(|| self.cut())?, out)?;
        }
        Ok(Some(offset))
    }

    /// Reads the value that begins with the byte `first` into `out`.
    fn value(&mut self, first: u8, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        out.push(first);
        let (mut depth, mut in_string) = (usize::from(matches!(first, b'{' | b'[')), first == b'"');
        while depth > 0 || in_string {
            let byte = self.byte()?.ok_or_else(|| self.cut())?;
            out.push(byte);
            match (in_string, byte) {
                (true, b'\\') => out.push(self.byte()?.ok_or_else(|| self.cut())?),
                (_, b'"') => in_string = !in_string,
                (false, b'{' | b'[') => depth += 1,
                (false, b'}' | b']') => depth -= 1,
                _ => {}
            }
            if out.len() > LONGEST {
                let offset = self.at - out.len() as u64;
                let what = format!("the row at byte {offset} is longer than {LONGEST} bytes");
                return Err(Error::format(self.path, what));
            }
        }
        Ok(())
    }

    /// Returns the fields of the element `bytes`. The name of an element of an object is the id of its row.
    fn fields(&self, place: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
        let mut fields = parse(self.path, place, bytes)?;
        if self.layout == Layout::Map {
            let invalid = |e| Error::format(self.path, format!("{place}: invalid JSON in its name ({e})"));
            fields.entry("id").or_insert(serde_json::from_slice(&self.name).map_err(invalid)?);
        }
        Ok(fields)
    }

    /// Returns the next byte that is no whitespace.
    fn skip(&mut self) -> Result<Option<u8>> {
        loop {
            match self.byte()? {
                Some(byte) if byte.is_ascii_whitespace() => {}
                byte => return Ok(byte),
            }
        }
    }

    fn byte(&mut self) -> Result<Option<u8>> {
        let byte = self.reader.fill_buf().map_err(Error::io(self.path))?.first().copied();
        if byte.is_some() {
            self.reader.consume(1);
            self.at += 1;
        }
        Ok(byte)
    }

    fn cut(&self) -> Error {
        Error::format(self.path, format!("ends at byte {}, inside its rows", self.at))
    }
}

/// Returns the first bytes of a file without the byte order mark.
fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

/// Returns the approximate number of values in a JSON text: counts `,`, `[` and `{` outside of strings.
fn values(text: &str) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// Beginning of the error of a field that occurs twice.
const TWICE: &str = "two fields";

/// The fields of an object, each with another name.
struct Row(Map<String, Value>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Row, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Row;

            fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Row, A::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    match fields.entry(name) {
                        Entry::Vacant(entry) => drop(entry.insert(value)),
                        Entry::Occupied(entry) => return Err(A::Error::custom(format!("{TWICE} `{}`", entry.key()))),
                    }
                }
                Ok(Row(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

pub(crate) fn parse(path: &Path, place: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::format(path, format!("{place}: invalid UTF-8 at its byte {}", e.valid_up_to())))?;
    if text.len() > MOST_VALUES && values(text) > MOST_VALUES {
        return Err(Error::format(path, format!("{place}: more than {MOST_VALUES} values in one row")));
    }
    let other = "found something other than a JSON object, expected one object per row";
    let text = text.trim_end();
    let read = serde_json::from_str(text).and_then(|Row(fields)| match fields.values().any(exact::is_rounded) {
        true => serde_json::from_str(&exact::quoted(text)),
        false => Ok(Row(fields)),
    });
    match read {
        Ok(Row(fields)) => Ok(fields),
        Err(e) if e.is_data() && e.to_string().starts_with(TWICE) => {
            Err(Error::format(path, format!("{place}: found {e}, expected one of each name")))
        }
        Err(e) if e.is_data() => Err(Error::format(path, format!("{place}: {other}"))),
        Err(e) => {
            // The parser's line number counts within this row, so it is always 1.
            let what = e.to_string().replace(" at line 1 column ", " at character ");
            Err(Error::format(path, format!("{place}: invalid JSON ({what})")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_too_many_values_is_refused_before_they_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let bomb = format!("{{\"a\": [{}0]}}\n", "0,".repeat(MOST_VALUES));
        let image = format!("{{\"a\": \"{}\"}}\n", "0,".repeat(MOST_VALUES));
        std::fs::write(&path, bomb + &image).unwrap();
        let mut found = Vec::new();
        jsonl(&path, 9, |_, row| {
            found.push(row.map(|_| ()).map_err(|e| e.to_string()));
            Ok(())
        })
        .unwrap();
        assert!(found[0].as_ref().is_err_and(|e| e.contains("line 1: more than")), "{found:?}");
        assert_eq!(found[1], Ok(()));
    }

    #[test]
    fn an_array_is_read_element_by_element_and_each_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.json");
        let rows = [r#"{"a": "]}\"{[,", "b": [1, {"c": []}]}"#, "{\"a\": \"\\\\\"}", "{nothing: 1}", "{\"z\": 1}"];
        std::fs::write(&path, format!("\u{feff} [\n  {}\n]\n", rows.join(" ,\n"))).unwrap();
        let file = Content::from(path.as_path());
        assert_eq!(Layout::of(&file).unwrap(), Layout::Array);
        let mut found = Vec::new();
        let mut take = |at: Line, row: Result<Map<String, Value>>| {
            found.push((at.offset, row.map_err(|e| e.to_string())));
            Ok(())
        };
        Layout::Array.read(&file, 9, &mut take).unwrap();
        assert_eq!(found.len(), 4);
        for ((offset, row), text) in found.iter().zip(rows) {
            match serde_json::from_str::<Value>(text) {
                Ok(value) => assert_eq!(Value::Object(row.clone().unwrap()), value),
                Err(_) => assert!(row.as_ref().is_err_and(|e| e.contains("row 3: invalid JSON")), "{row:?}"),
            }
            let again = Layout::Array.object(&file, *offset, "row").unwrap();
            assert_eq!(again.ok(), row.clone().ok());
        }
        std::fs::write(&path, "[{\"a\": 1}, {\"a\"").unwrap();
        let error = Layout::Array.read(&file, 9, |_, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains("ends at byte 15"), "{error}");
    }

    #[test]
    fn objects_over_several_lines_and_objects_of_objects_are_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.json");
        let file = Content::from(path.as_path());
        for (text, layout, rows) in [
            (
                "{\n \"a\": {\"b\": 1},\n \"c\": 2\n}\n{\n \"a\": 3\n}",
                Layout::Objects,
                [r#"{"a":{"b":1},"c":2}"#, r#"{"a":3}"#],
            ),
            (
                "\u{feff}{\"7\": {\"a\": 1},\n \"x \\\"y\" : {\"a\": \"}\", \"id\": 5}}\n",
                Layout::Map,
                [r#"{"a":1,"id":"7"}"#, r#"{"a":"}","id":5}"#],
            ),
            // Rows of structs are no object of rows.
            ("{\"a\": {\"b\": 1}}\n{\"a\": {}}\n", Layout::Lines, [r#"{"a":{"b":1}}"#, r#"{"a":{}}"#]),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Layout::of(&file).unwrap(), layout, "{text}");
            let mut found = Vec::new();
            let mut take = |at: Line, row: Result<Map<String, Value>>| {
                found.push((at.offset, Value::Object(row.unwrap()).to_string()));
                Ok(())
            };
            layout.read(&file, 9, &mut take).unwrap();
            assert_eq!(found.iter().map(|(_, row)| row.as_str()).collect::<Vec<_>>(), rows);
            for (offset, row) in &found {
                let again = layout.object(&file, *offset, "row").unwrap().unwrap();
                assert_eq!(&Value::Object(again).to_string(), row);
            }
        }
    }
}
