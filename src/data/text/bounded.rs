//! Renders a template with bounded memory, even if the template is malicious: chat templates, and those of the keys
//! `prompt` and `gold`. Every value that the template builds is measured before it is built and charged to one budget.
//! Filters and methods are charged through wrappers. Operators are charged because the instructions that build values are
//! replaced by equivalent function calls. Raw text is limited by the number of instructions (the fuel). The total memory
//! is at most a constant times the budget. A panic of the template library is an error.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::jinja;
use minijinja::machinery::{
    self, CompiledTemplate, Instruction, Instructions, TemplateConfig, Token, Vm, WhitespaceConfig,
};
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use omr_base::bounds::caught;

/// Maximum number of instructions per rendering. A message takes a few hundred, so this allows ten thousand messages.
const FUEL: u64 = 5_000_000;
/// Maximum size of the source in bytes. Published templates have up to 20 thousand.
const SOURCE_BYTES: usize = 1 << 16;
/// Maximum size in bytes of constants that are folded at compile time.
const FOLDED_BYTES: usize = 1 << 28;
/// Bytes that a rendering may build: `BUILT_BASE` plus `BUILT_FACTOR` times the size of the messages.
const BUILT_BASE: usize = 16 << 20;
const BUILT_FACTOR: usize = 64;
/// Maximum nesting of lists. Deeper values are rejected, so they are never walked, printed or freed by recursion.
const DEPTH: usize = 64;
/// Bytes charged for an element of a list in addition to its text.
const ELEMENT: usize = 24;
/// Bytes charged for a namespace. A namespace can contain another namespace, which `measure` does not count. The charge
/// limits the number of namespaces and therefore their nesting.
const NAMESPACE: usize = 1 << 16;
const NAME: &str = "template";

/// Operators that are replaced by functions, with names that no template can write.
const OPERATORS: [(&str, &str); 4] = [("+", "a + b"), ("*", "a * b"), ("~", "a ~ b"), ("[:]", "a[b:c:d]")];
/// Functions whose result is at most as large as the sum of their arguments. For all others, such as `replace`, `join`,
/// `indent` and `center`, the result is assumed to be as large as the product of the arguments. An integer argument
/// counts with its value.
const SUMS: &str = "+ ~ [] {} [:] dict namespace abs attr bool capitalize count d default dictsort endswith first float \
    format_number get groupby int isalnum isalpha isdigit islower isspace isupper items keys last length list lower \
    lstrip max min reject rejectattr reverse round rstrip safe select selectattr sort split splitlines startswith \
    string strip sum title trim unique upper values";

type Result<T> = std::result::Result<T, Error>;

thread_local! {
    /// Bytes that the rendering on this thread may still build.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// A compiled template with its environment.
#[derive(Debug)]
pub(super) struct Bounded {
    env: Environment<'static>,
    /// Sorted names of the variables that the template reads.
    pub(super) variables: Vec<String>,
    /// Instructions of the template.
    main: Instructions<'static>,
    /// Instructions of its blocks, by name.
    blocks: BTreeMap<&'static str, Instructions<'static>>,
}

impl Bounded {
    /// Compiles a template in the language of `plain`: functions, filters and tests without memory bounds, and the handling
    /// of undefined values. `printed` converts a value to one with the text that is printed. A rendering may write or
    /// capture at most `raw_bytes` bytes of raw text; one instruction writes at most one piece of the source.
    pub(super) fn new(
        source: &str,
        plain: &'static Environment<'static>,
        printed: fn(&Value) -> Value,
        raw_bytes: u64,
    ) -> Result<Bounded> {
        if source.len() > SOURCE_BYTES {
            return Err(refused(format!("a template of {} bytes, more than {SOURCE_BYTES}", source.len())));
        }
        let mut env = plain.clone();
        env.set_unknown_method_callback(|state, value, method, args| {
            let all: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
            let call = || minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args);
            charged(method, &all, || if method == "title" { call().map(jinja::titled) } else { call() })
        });
        env.set_formatter(move |out, state, value| {
            charge(measure(value)?)?;
            minijinja::escape_formatter(out, state, &printed(value))
        });
        // `debug` would print every variable.
        env.remove_global("debug");
        // The built-in `range` is kept: it is evaluated lazily and returns at most 100,000 numbers.
        let others = plain.globals().filter(|(name, _)| !matches!(*name, "debug" | "range"));
        for (name, function) in others.map(|(name, value)| (name.to_owned(), value)) {
            let wrapped = name.clone();
            let call = move |state: &State, args: Rest<Value>| charged(&wrapped, &args, || function.call(state, &args));
            env.add_function(name, call);
        }
        for (name, expression) in OPERATORS {
            let expression = plain.compile_expression(expression)?;
            let run = move |args: &[Value]| {
                let args = args.iter().map(|arg| if name == "~" { printed(arg) } else { arg.clone() });
                expression.eval(["a", "b", "c", "d"].into_iter().zip(args).collect::<Value>())
            };
            env.add_function(name, move |args: Rest<Value>| charged(name, &args, || run(&args)));
        }
        env.add_function("[]", |args: Rest<Value>| charged("[]", &args, || Ok(args.iter().cloned().collect())));
        env.add_function("{}", |args: Rest<Value>| {
            charged("{}", &args, || Ok(args.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()))
        });
        check_constants(source)?;
        // The compiled instructions borrow the source, and a program compiles only the templates of its models and entries.
        let source: &'static str = source.to_owned().leak();
        let (mut longest, mut filters) = (1, Vec::new());
        let template = env.template_from_named_str(NAME, source)?;
        let mut variables: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        variables.sort_unstable();
        let config = TemplateConfig {
            syntax_config: Default::default(),
            ws_config: WhitespaceConfig { trim_blocks: true, lstrip_blocks: true, ..Default::default() },
            default_auto_escape: Arc::new(|_| AutoEscape::None),
        };
        let compiled = CompiledTemplate::new(NAME, source, &config)?;
        let mut blocks = BTreeMap::new();
        for (name, code) in
            [("", &compiled.instructions)].into_iter().chain(compiled.blocks.iter().map(|(n, c)| (*n, c)))
        {
            blocks.insert(name, replaced(code)?);
            for instruction in instructions(code) {
                match instruction {
                    Instruction::EmitRaw(text) => longest = longest.max(text.len() as u64),
                    Instruction::ApplyFilter(name, ..) => filters.push((*name).to_owned()),
                    _ => {}
                }
            }
        }
        for name in filters {
            let filter = name.clone();
            let apply = move |args: &[Value]| plain.empty_state().apply_filter(&filter, args);
            env.add_filter(name.clone(), move |args: Rest<Value>| charged(&name, &args, || apply(&args)));
        }
        env.set_fuel(Some(FUEL.min(raw_bytes / longest)));
        let main = blocks.remove("").unwrap_or_else(|| Instructions::new(NAME, ""));
        Ok(Bounded { env, variables, main, blocks })
    }

    /// Renders the template with `context`. `given` is the size in bytes of the messages, or of the row.
    pub(super) fn render(&self, context: Value, given: usize) -> Result<String> {
        let rendered = caught(|| self.render_caught(context, given));
        rendered.unwrap_or_else(|what| Err(refused(format!("the template library fails: {what}"))))
    }

    fn render_caught(&self, context: Value, given: usize) -> Result<String> {
        LEFT.set(BUILT_BASE + BUILT_FACTOR * given);
        let mut text = String::new();
        let mut out = machinery::make_string_output(&mut text);
        Vm::new(&self.env).eval(&self.main, context, &self.blocks, &mut out, AutoEscape::None)?;
        Ok(text)
    }
}

fn instructions<'a, 'source>(code: &'a Instructions<'source>) -> impl Iterator<Item = &'a Instruction<'source>> {
    (0..).map_while(|i| code.get(i))
}

/// Copies the code and replaces the instructions that build values by function calls.
fn replaced<'source>(code: &Instructions<'source>) -> Result<Instructions<'source>> {
    let many = |n: usize| u16::try_from(n).map_err(|_| refused(format!("{n} values in one list")));
    let mut copy = Instructions::new(code.name(), code.source());
    for (i, instruction) in instructions(code).enumerate() {
        let call = match instruction {
            Instruction::Add => Some(("+", Some(2))),
            Instruction::Mul => Some(("*", Some(2))),
            Instruction::StringConcat => Some(("~", Some(2))),
            Instruction::Slice => Some(("[:]", Some(4))),
            Instruction::BuildList(n) => Some(("[]", n.map(many).transpose()?)),
            Instruction::BuildMap(n) => Some(("{}", Some(many(2 * n)?))),
            _ => None,
        };
        let instruction = call.map_or_else(|| instruction.clone(), |(name, n)| Instruction::CallFunction(name, n));
        match code.get_line(i as u32) {
            Some(line) => copy.add_with_line(instruction, line as u16),
            None => copy.add(instruction),
        };
    }
    Ok(copy)
}

/// Calls `make` if its largest possible result fits in the budget, and charges the actual result.
fn charged(name: &str, args: &[Value], make: impl FnOnce() -> Result<Value>) -> Result<Value> {
    // The result of these filters is one number, so nothing is copied.
    if ["length", "count"].contains(&name) {
        return make();
    }
    let is_sum = |name: &str| SUMS.split_ascii_whitespace().any(|sum| sum == name);
    // `map` applies the filter that its argument names.
    let filter = args.get(1).and_then(Value::as_str).filter(|_| name == "map");
    let sums = is_sum(name) && filter.is_none_or(is_sum);
    let mut most = if sums { 0_usize } else { 1 };
    // The result of `replace` does not grow with the text that is replaced.
    for (_, arg) in args.iter().enumerate().filter(|(i, _)| name != "replace" || *i != 1) {
        let size = match arg.as_str() {
            Some(text) if name == "format" => text.len().max(largest_number(text)),
            _ => measure(arg)?,
        };
        let number = i64::try_from(arg.clone()).map_or(1, |n| n.unsigned_abs() as usize);
        most = if sums { most.saturating_add(size) } else { most.saturating_mul(size.saturating_add(1).max(number)) };
    }
    if most > LEFT.get() {
        return Err(too_much());
    }
    let mut value = make()?;
    // A lazy value is collected now, because lazy values could nest without limit.
    if value.kind() == ValueKind::Iterable {
        value = value.try_iter()?.collect();
    }
    let own = |value: &Value| value.as_str().map_or(0, str::len);
    charge(own(&value) + if name == "namespace" { NAMESPACE } else { 0 })?;
    if value.kind() == ValueKind::Seq {
        value.try_iter()?.try_for_each(|element| charge(ELEMENT + own(&element)))?;
    }
    Ok(value)
}

fn charge(bytes: usize) -> Result<()> {
    LEFT.set(LEFT.get().checked_sub(bytes).ok_or_else(too_much)?);
    Ok(())
}

/// Returns the approximate size in bytes of a value when written out. A value that is referenced several times counts
/// each time. Returns an error if the size exceeds the budget.
fn measure(value: &Value) -> Result<usize> {
    let most = LEFT.get();
    let (mut size, mut open) = (0, vec![(value.clone(), 0)]);
    while let Some((value, depth)) = open.pop() {
        size += value.as_bytes().map_or(ELEMENT / 3, <[u8]>::len);
        let is_map = value.kind() == ValueKind::Map;
        if is_map || matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
            if depth == DEPTH || value.len().is_some_and(|len| len > most) {
                return Err(too_much());
            }
            for element in value.try_iter()? {
                size += 1;
                if size > most {
                    return Err(too_much());
                }
                if is_map {
                    open.push((value.get_item(&element)?, depth + 1));
                }
                open.push((element, depth + 1));
            }
        }
        if size > most {
            return Err(too_much());
        }
    }
    Ok(size)
}

/// Returns the largest number in a text, because `format` may use it as a width.
fn largest_number(text: &str) -> usize {
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.map(|digits| digits.parse().unwrap_or(usize::MAX)).max().unwrap_or(0)
}

/// Rejects constant expressions with a large result. The compiler evaluates them before any instruction runs.
fn check_constants(source: &str) -> Result<()> {
    let (mut multiplies, mut product) = (false, source.len() as f64);
    for token in machinery::tokenize(source, false, Default::default(), Default::default()) {
        match token?.0 {
            Token::Mul => multiplies = true,
            Token::Pow => return Err(refused("the operator **".to_owned())),
            Token::Int(n) => product *= n.max(1) as f64,
            Token::Int128(n) => product *= *n as f64,
            Token::Float(x) => product *= x.max(1.0),
            _ => {}
        }
    }
    if multiplies && product > FOLDED_BYTES as f64 { Err(too_much()) } else { Ok(()) }
}

fn too_much() -> Error {
    refused(format!("it builds more than {BUILT_FACTOR} times the size of its input plus {BUILT_BASE} bytes"))
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}
