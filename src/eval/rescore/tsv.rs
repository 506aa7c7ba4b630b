//! Parses tab-separated tables in the format of pandas. A field with a tab, a line break or a quote is enclosed in
//! quotes, and quotes inside it are doubled.

/// Returns the rows of a text, each with the number of its first line, from 1. The error is the number of the line with
/// a quote that is never closed.
pub fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let mut rows = Vec::new();
    let (mut row, mut field) = (Vec::new(), String::new());
    let (mut line, mut begun) = (1, 1);
    let mut quoted: Option<usize> = None;
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match (quoted, c) {
            (Some(_), '"') if chars.peek() == Some(&'"') => field.extend(chars.next()),
            (Some(_), '"') => quoted = None,
            (Some(_), c) => field.push(c),
            (None, '"') if field.is_empty() => quoted = Some(line),
            (None, '\t') => row.push(std::mem::take(&mut field)),
            (None, '\n') => {
                row.push(std::mem::take(&mut field).trim_end_matches('\r').to_owned());
                rows.push((begun, std::mem::take(&mut row)));
                begun = line;
            }
            (None, c) => field.push(c),
        }
    }
    if let Some(line) = quoted {
        return Err(line);
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push((begun, row));
    }
    rows.retain(|(_, row)| row.iter().any(|field| !field.is_empty()));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn quotes_hold_tabs_lines_and_quotes() {
        let text = "\u{feff}index\tprediction\r\n1\t\"two\nlines\tand \"\"quotes\"\"\"\n\n2\tplain \"word\"";
        let found = rows(text).unwrap();
        let plain = |row: &[&str]| row.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>();
        assert_eq!(found[0], (1, plain(&["index", "prediction"])));
        assert_eq!(found[1], (2, plain(&["1", "two\nlines\tand \"quotes\""])));
        assert_eq!(found[2], (5, plain(&["2", "plain \"word\""])));
        assert_eq!(rows("a\tb\n1\t\"open\n\n"), Err(2));
    }
}
