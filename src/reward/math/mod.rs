//! Mathematical answers: LaTeX or plain text to a [`Value`], and whether two values are equal.
//!
//! What is rational is compared exactly. The rest is computed with error bounds at sample points: two values are
//! equal when they agree there to more digits than chance allows, unequal when their errors leave a gap, and
//! otherwise the precision is raised. Everything runs under one budget of [`Steps`], so that any text ends soon, with
//! the same verdict on every machine.
//!
//! The rules are general, and what they have not met they refuse rather than accept: of nine files of pairs in notations
//! that were new to them (`tests/data/verify`, 1,987 pairs, written before their first run), the first runs were right
//! on 82, 86, 83, 94, 97, 97, 94, 97 and 95 %, with 8 wrong acceptances in all. After each run the rules were mended.

mod amounts;
mod arrays;
mod ball;
mod between;
mod binder;
mod brackets;
mod calculus;
mod calendar;
mod clock;
mod compare;
mod complex;
mod conclusions;
mod confidence;
mod constant;
mod constants;
mod continued;
mod decide;
mod defined;
mod described;
mod digits;
mod distributions;
mod domain;
mod ellipsis;
mod enclosed;
mod equations;
mod eval;
mod exact;
mod expr;
mod extrema;
mod family;
mod figures;
mod foreign;
mod formats;
mod forms;
mod function;
mod growth;
mod inequality;
mod lex;
mod lists;
mod locus;
mod logic;
mod maps;
mod matrix;
mod measure;
mod names;
mod naming;
mod notation;
pub(in crate::reward) mod number_words;
mod numeral;
mod numerals;
mod over;
mod parse;
mod pieces;
mod piecewise;
mod primitive;
mod quantity;
mod ratio;
mod records;
mod recurrence;
mod region;
mod relation;
mod restate;
mod rounding;
mod said_bounds;
mod said_sets;
mod scalar;
mod sentences;
mod sets;
mod several;
mod side;
mod siunitx;
mod spoken;
mod structures;
mod tallies;
mod terms;
mod text;
mod unit;
mod whole;
mod wording;
mod written;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// An exact rational number.
pub type Rational = num_rational::Ratio<num_bigint::BigInt>;

pub use compare::{Comparison, equal};
pub(in crate::reward) use conclusions::concluded_otherwise;
pub(in crate::reward) use confidence::another_level;
pub(in crate::reward) use constant::same_constant;
pub(in crate::reward) use defined::{defined_otherwise, same_defined};
pub(in crate::reward) use described::{counted_otherwise, same as same_described};
pub use domain::Domain;
pub use expr::Expr;
pub(in crate::reward) use extrema::another_extremum;
pub use formats::same_format;
pub use names::same_name;
pub use notation::ascii;
pub use number_words::is_number as is_number_word;
pub use parse::{Value, amount, dates, is_unit, parse};
pub use records::{other_part, parts_differ};
pub use restate::restated;
pub use rounding::same_rounding;
pub use said_bounds::said_bounds;
pub(in crate::reward) use sentences::another_divisor;
pub use side::{turned, undirected};
pub use text::{formula, roman};
pub use unit::{Measure, Reading, Unit};
pub(in crate::reward) use whole::same_whole;

/// Why two texts are equal that are no values of mathematics but name the same thing of one of its fields.
pub fn named_alike(gold: &str, answer: &str, steps: &Steps) -> Option<&'static str> {
    // Texts that hardly differ in length are cheap to read; each reader refuses what is not its own.
    steps.spend((gold.len() + answer.len()) as u64)?;
    if let (Some(a), Some(b)) = (conclusions::conclusion(gold), conclusions::conclusion(answer))
        && a == b
    {
        return Some("the same conclusion");
    }
    if logic::same_formula(gold, answer) {
        return Some("the same truth table");
    }
    if figures::same_figures(gold, answer) {
        return Some("the same figures");
    }
    if structures::same_structure(gold, answer) {
        return Some("the same structure");
    }
    if distributions::same_distribution(gold, answer, steps) {
        return Some("the same distribution");
    }
    records::same_records(gold, answer, steps).then_some("the same in every part")
}

/// True for a text that names a graph, a group or several parts in words: no answer stands inside it.
pub fn is_named(text: &str) -> bool {
    records::is_record(text)
        || (text.contains(' ')
            && (structures::is_named(text)
                || sentences::is_form(text)
                || figures::is_relation(text)
                || distributions::is_worded(text, &Steps::new(BUDGET))))
}

/// A budget of steps, and the texts that were read under it; a step is some ten nanoseconds of work.
pub struct Steps {
    left: Cell<u64>,
    budget: u64,
    /// Values with the steps that they took, by their texts and whether these were read with grouped digits.
    values: RefCell<HashMap<(String, bool), (Value, u64)>>,
}

/// Steps one verdict may take: some 35 ms.
pub const BUDGET: u64 = 2_500_000;

impl Steps {
    /// A full budget.
    pub fn new(budget: u64) -> Self {
        Steps { left: Cell::new(budget), budget, values: RefCell::default() }
    }

    /// Takes `n` steps; `None` when the budget is used up.
    pub fn spend(&self, n: u64) -> Option<()> {
        match self.left.get().checked_sub(n) {
            Some(left) => {
                self.left.set(left);
                Some(())
            }
            None => {
                self.left.set(0);
                None
            }
        }
    }

    /// What `read` makes of a text. It is made once and paid for each time, so that the budget is spent alike.
    fn once(&self, text: &str, grouped: bool, read: impl FnOnce() -> Value) -> Value {
        const LONGEST: usize = 400;
        if text.len() > LONGEST {
            return read();
        }
        let key = (text.to_owned(), grouped);
        let (left, known) = (self.left.get(), self.values.borrow().get(&key).cloned());
        if let Some((value, taken)) = known
            && taken < left
        {
            self.left.set(left - taken);
            return value;
        }
        let value = read();
        if !self.exhausted() {
            self.values.borrow_mut().insert(key, (value.clone(), left - self.left.get()));
        }
        value
    }

    /// Steps taken so far.
    pub fn taken(&self) -> u64 {
        self.budget - self.left.get()
    }

    /// True when nothing is left.
    pub fn exhausted(&self) -> bool {
        self.left.get() == 0
    }
}

/// A number as a value; a decimal's digits are not counted beyond those of its shortest form.
pub fn scalar(value: Rational, decimal: bool, unit: Option<Unit>) -> Value {
    Value::Scalar(Expr::Num { value, decimals: decimal.then_some(0) }, unit)
}

impl Expr {
    /// The exact value, when it is rational, not too large and within the budget.
    pub fn exact(&self, steps: &Steps) -> Option<Rational> {
        exact::exact(self, steps)
    }
}
