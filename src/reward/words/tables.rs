//! Tables of signs and words beside a text. Most texts hold few of a table's rows, and their bytes alone tell which
//! they cannot hold: a search is begun only for the others.

use std::borrow::Cow;

/// True for a word of a list that is written as one string, with spaces between.
pub(in crate::reward) fn among(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|w| w == word)
}

/// The bytes of a text as a set.
#[derive(Clone, Copy, Default)]
pub(in crate::reward) struct Bytes([u64; 4]);

impl Bytes {
    pub(in crate::reward) fn of(text: &str) -> Bytes {
        Bytes::default().and(text)
    }

    /// With the bytes of another text.
    pub(in crate::reward) fn and(mut self, text: &str) -> Bytes {
        for b in text.bytes() {
            self.0[usize::from(b >> 6)] |= 1 << (b & 63);
        }
        self
    }

    /// False where the text holds no such word: one of its bytes is missing.
    pub(in crate::reward) fn may_hold(&self, word: &str) -> bool {
        word.bytes().all(|b| self.0[usize::from(b >> 6)] >> (b & 63) & 1 == 1)
    }
}

/// The text with each row's first part replaced by its second, one row after the other, as `str::replace` does it.
pub(in crate::reward) fn replaced<'a>(text: impl Into<Cow<'a, str>>, table: &[(&str, &str)]) -> Cow<'a, str> {
    rewritten(text.into(), table.iter().copied())
}

/// The text with each of these words, one after the other, replaced by the same sign, or by nothing.
pub(in crate::reward) fn all_as<'a>(text: impl Into<Cow<'a, str>>, words: &[&str], sign: &str) -> Cow<'a, str> {
    rewritten(text.into(), words.iter().map(|word| (*word, sign)))
}

fn rewritten<'a, 'b>(mut text: Cow<'a, str>, rows: impl Iterator<Item = (&'b str, &'b str)>) -> Cow<'a, str> {
    let mut bytes = Bytes::of(&text);
    for (from, to) in rows {
        if bytes.may_hold(from) && text.contains(from) {
            text = Cow::Owned(text.replace(from, to));
            bytes = bytes.and(to);
        }
    }
    text
}

/// True for a text of digits and signs without any letter: it holds no word and no command.
pub(in crate::reward) fn is_wordless(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii() && !b.is_ascii_alphabetic())
}

/// The rows of a table by the first bytes of their words, those of one byte in the table's order.
pub(in crate::reward) struct Rows<T: 'static>(Vec<Vec<&'static (&'static str, T)>>);

impl<T> Rows<T> {
    pub(in crate::reward) fn of(table: &'static [(&'static str, T)]) -> Rows<T> {
        let mut rows: Vec<Vec<_>> = (0..256).map(|_| Vec::new()).collect();
        for row in table {
            if let Some(first) = row.0.bytes().next() {
                rows[usize::from(first)].push(row);
            }
        }
        Rows(rows)
    }

    /// The rows with whose words a text begins.
    pub(in crate::reward) fn at(&self, text: &str) -> impl Iterator<Item = &'static (&'static str, T)> {
        let rows = text.bytes().next().map_or(&[][..], |first| &self.0[usize::from(first)]);
        rows.iter().copied().filter(move |row| text.starts_with(row.0))
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Rows, replaced};

    #[test]
    fn rows_are_replaced_one_after_the_other() {
        let table = [("\\to", "->"), ("->", ">"), ("\u{2212}", "-"), ("aa", "a")];
        assert_eq!(replaced("x \\to y", &table), "x > y");
        assert_eq!(replaced("\u{2212}>", &table), "->");
        assert_eq!(replaced("aaaa", &table), "aa");
        assert!(matches!(replaced("12.5", &table), std::borrow::Cow::Borrowed("12.5")));
    }

    #[test]
    fn only_bytes_that_are_there_can_be_held() {
        let bytes = Bytes::of("line \u{3c0}");
        assert!(bytes.may_hold("nil") && bytes.may_hold("\u{3c0}") && !bytes.may_hold("plane"));
    }

    #[test]
    fn rows_stand_in_their_order() {
        const TABLE: [(&str, u8); 4] = [("maximum", 1), ("mean", 2), ("max", 3), ("range", 4)];
        let rows = Rows::of(&TABLE);
        assert_eq!(rows.at("maximum of").map(|r| r.1).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(rows.at("").count() + rows.at("x").count(), 0);
    }
}
