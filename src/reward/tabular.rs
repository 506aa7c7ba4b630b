//! Tables of Markdown as lists of named values: a row of names over a row of values, or a name and a value in each row.

/// Longest table.
const MAX_BYTES: usize = 2_000;
/// Most rows and columns.
const MAX_CELLS: usize = 20;

/// `A = 3, B = 5` for a text that is nothing but such a table.
pub(super) fn listed(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_BYTES || !text.contains('\n') || !text.contains('|') {
        return None;
    }
    let mut rows: Vec<Vec<&str>> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let inner = line.strip_prefix('|')?.strip_suffix('|')?;
        let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
        let rule = cells.iter().all(|c| c.contains('-') && c.chars().all(|c| matches!(c, '-' | ':')));
        if !rule {
            rows.push(cells);
        }
    }
    let width = rows.first()?.len();
    let fits = (2..=MAX_CELLS).contains(&width) && rows.len() <= MAX_CELLS && rows.iter().all(|r| r.len() == width);
    if !fits {
        return None;
    }
    let named = |name: &str| name.starts_with(char::is_alphabetic) && !name.contains(['=', ',']);
    let number = |cell: &str| cell.contains(|c: char| c.is_ascii_digit());
    let pair = |(name, value): (&str, &str)| format!("{name} = {value}");
    let pairs: Vec<String> = match rows.as_slice() {
        [names, values] if names.iter().all(|n| named(n)) && values.iter().all(|v| number(v)) => {
            names.iter().copied().zip(values.iter().copied()).map(pair).collect()
        }
        all if width == 2 && all.len() > 1 => {
            // The first row may head the columns.
            let body = if number(all[0][1]) { all } else { &all[1..] };
            let known = body.len() > 1 && body.iter().all(|r| named(r[0]) && number(r[1]));
            known.then(|| body.iter().map(|r| pair((r[0], r[1]))).collect())?
        }
        _ => return None,
    };
    Some(pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn names_over_and_beside_values() {
        assert_eq!(listed("| A | B |\n|---|---|\n| 3 | 5 |").as_deref(), Some("A = 3, B = 5"));
        assert_eq!(listed("| who | n |\n|---|---|\n| A | 3 |\n| B | 5 |").as_deref(), Some("A = 3, B = 5"));
        assert_eq!(listed("|x| and\n|y|"), None);
    }
}
