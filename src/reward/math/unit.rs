//! Units: what they measure and how large they are.

use super::Rational;

/// Powers of length, mass, time, current, temperature, amount of substance, angle, money and information.
pub type Dimension = [i8; 9];

const NONE: Dimension = [0; 9];
const LENGTH: Dimension = [1, 0, 0, 0, 0, 0, 0, 0, 0];
const AREA: Dimension = [2, 0, 0, 0, 0, 0, 0, 0, 0];
const VOLUME: Dimension = [3, 0, 0, 0, 0, 0, 0, 0, 0];
const MASS: Dimension = [0, 1, 0, 0, 0, 0, 0, 0, 0];
const TIME: Dimension = [0, 0, 1, 0, 0, 0, 0, 0, 0];
const FREQUENCY: Dimension = [0, 0, -1, 0, 0, 0, 0, 0, 0];
const SPEED: Dimension = [1, 0, -1, 0, 0, 0, 0, 0, 0];
const CURRENT: Dimension = [0, 0, 0, 1, 0, 0, 0, 0, 0];
const HEAT: Dimension = [0, 0, 0, 0, 1, 0, 0, 0, 0];
const AMOUNT: Dimension = [0, 0, 0, 0, 0, 1, 0, 0, 0];
const ANGLE: Dimension = [0, 0, 0, 0, 0, 0, 1, 0, 0];
const MONEY: Dimension = [0, 0, 0, 0, 0, 0, 0, 1, 0];
const BITS: Dimension = [0, 0, 0, 0, 0, 0, 0, 0, 1];
const FORCE: Dimension = [1, 1, -2, 0, 0, 0, 0, 0, 0];
const ENERGY: Dimension = [2, 1, -2, 0, 0, 0, 0, 0, 0];
const POWER: Dimension = [2, 1, -3, 0, 0, 0, 0, 0, 0];
const PRESSURE: Dimension = [-1, 1, -2, 0, 0, 0, 0, 0, 0];
const VOLTAGE: Dimension = [2, 1, -3, -1, 0, 0, 0, 0, 0];
const CHARGE: Dimension = [0, 0, 1, 1, 0, 0, 0, 0, 0];
const RESISTANCE: Dimension = [2, 1, -3, -2, 0, 0, 0, 0, 0];
const CAPACITANCE: Dimension = [-2, -1, 4, 2, 0, 0, 0, 0, 0];
const FIELD: Dimension = [0, 1, -2, -1, 0, 0, 0, 0, 0];
const FLUX: Dimension = [2, 1, -2, -1, 0, 0, 0, 0, 0];
const INDUCTANCE: Dimension = [2, 1, -2, -2, 0, 0, 0, 0, 0];

/// Names, what they measure, and their size as a fraction of the SI unit. The first name is the sign; signs are
/// told by case, words are not.
type Entry = (&'static [&'static str], Dimension, i128, i128);

const UNITS: [Entry; 124] = [
    (&["m", "meter", "metre"], LENGTH, 1, 1),
    (&["km", "kilometer", "kilometre"], LENGTH, 1_000, 1),
    (&["cm", "centimeter", "centimetre"], LENGTH, 1, 100),
    (&["dm", "decimeter", "decimetre"], LENGTH, 1, 10),
    (&["mm", "millimeter", "millimetre"], LENGTH, 1, 1_000),
    (&["um", "micrometer", "micrometre", "micron"], LENGTH, 1, 1_000_000),
    (&["nm", "nanometer", "nanometre"], LENGTH, 1, 1_000_000_000),
    (&["in", "inch", "inche"], LENGTH, 254, 10_000),
    (&["ft", "foot", "feet"], LENGTH, 3_048, 10_000),
    (&["yd", "yard"], LENGTH, 9_144, 10_000),
    (&["mi", "mile"], LENGTH, 1_609_344, 1_000),
    (&["ly", "lightyear", "light-year"], LENGTH, 9_460_730_472_580_800, 1),
    (&["sqm", "sq m"], AREA, 1, 1),
    (&["ha", "hectare"], AREA, 10_000, 1),
    (&["ac", "acre"], AREA, 40_468_564_224, 10_000_000),
    (&["L", "liter", "litre", "l"], VOLUME, 1, 1_000),
    (&["mL", "milliliter", "millilitre", "ml", "cc"], VOLUME, 1, 1_000_000),
    (&["cL", "centiliter", "centilitre", "cl"], VOLUME, 1, 100_000),
    (&["dL", "deciliter", "decilitre", "dl"], VOLUME, 1, 10_000),
    (&["kL", "kiloliter", "kilolitre", "kl"], VOLUME, 1, 1),
    (&["gal", "gallon"], VOLUME, 3_785_411_784, 1_000_000_000_000),
    (&["qt", "quart"], VOLUME, 946_352_946, 1_000_000_000_000),
    (&["pt", "pint"], VOLUME, 473_176_473, 1_000_000_000_000),
    (&["g", "gram", "gramme", "gm"], MASS, 1, 1_000),
    (&["kg", "kilogram", "kilo"], MASS, 1, 1),
    (&["mg", "milligram"], MASS, 1, 1_000_000),
    (&["ug", "microgram"], MASS, 1, 1_000_000_000),
    (&["t", "tonne", "ton"], MASS, 1_000, 1),
    (&["lb", "pound", "lbs"], MASS, 45_359_237, 100_000_000),
    (&["oz", "ounce"], MASS, 28_349_523_125, 1_000_000_000_000),
    (&["s", "second", "sec"], TIME, 1, 1),
    (&["ms", "millisecond"], TIME, 1, 1_000),
    (&["us", "microsecond"], TIME, 1, 1_000_000),
    (&["ns", "nanosecond"], TIME, 1, 1_000_000_000),
    (&["min", "minute", "mins"], TIME, 60, 1),
    (&["h", "hour", "hr", "hrs"], TIME, 3_600, 1),
    (&["d", "day"], TIME, 86_400, 1),
    (&["wk", "week"], TIME, 604_800, 1),
    (&["mo", "month"], TIME, 2_629_746, 1),
    (&["yr", "year"], TIME, 31_556_952, 1),
    (&["Hz", "hertz"], FREQUENCY, 1, 1),
    (&["kHz", "kilohertz"], FREQUENCY, 1_000, 1),
    (&["MHz", "megahertz"], FREQUENCY, 1_000_000, 1),
    (&["GHz", "gigahertz"], FREQUENCY, 1_000_000_000, 1),
    (&["rpm", "revolution per minute"], FREQUENCY, 1, 60),
    (&["mph"], SPEED, 44_704, 100_000),
    (&["kph", "kmph", "kmh"], SPEED, 5, 18),
    (&["A", "ampere", "amp"], CURRENT, 1, 1),
    (&["mA", "milliampere", "milliamp"], CURRENT, 1, 1_000),
    (&["K", "kelvin"], HEAT, 1, 1),
    (&["mol", "mole"], AMOUNT, 1, 1),
    (&["mmol", "millimole"], AMOUNT, 1, 1_000),
    (&["rad", "radian"], ANGLE, 1, 1),
    (&["N", "newton"], FORCE, 1, 1),
    (&["kN", "kilonewton"], FORCE, 1_000, 1),
    (&["mN", "millinewton"], FORCE, 1, 1_000),
    (&["J", "joule"], ENERGY, 1, 1),
    (&["kJ", "kilojoule"], ENERGY, 1_000, 1),
    (&["MJ", "megajoule"], ENERGY, 1_000_000, 1),
    (&["mJ", "millijoule"], ENERGY, 1, 1_000),
    (&["cal", "calorie"], ENERGY, 4_184, 1_000),
    (&["kcal", "kilocalorie"], ENERGY, 4_184, 1),
    (&["kWh", "kilowatt-hour", "kilowatthour"], ENERGY, 3_600_000, 1),
    (&["W", "watt"], POWER, 1, 1),
    (&["kW", "kilowatt"], POWER, 1_000, 1),
    (&["MW", "megawatt"], POWER, 1_000_000, 1),
    (&["mW", "milliwatt"], POWER, 1, 1_000),
    (&["Pa", "pascal"], PRESSURE, 1, 1),
    (&["kPa", "kilopascal"], PRESSURE, 1_000, 1),
    (&["MPa", "megapascal"], PRESSURE, 1_000_000, 1),
    (&["atm", "atmosphere"], PRESSURE, 101_325, 1),
    (&["bar"], PRESSURE, 100_000, 1),
    (&["V", "volt"], VOLTAGE, 1, 1),
    (&["kV", "kilovolt"], VOLTAGE, 1_000, 1),
    (&["mV", "millivolt"], VOLTAGE, 1, 1_000),
    (&["C", "coulomb"], CHARGE, 1, 1),
    (&["uC", "microcoulomb"], CHARGE, 1, 1_000_000),
    (&["nC", "nanocoulomb"], CHARGE, 1, 1_000_000_000),
    (&["ohm", "Omega"], RESISTANCE, 1, 1),
    (&["kohm", "kOmega", "kiloohm"], RESISTANCE, 1_000, 1),
    (&["F", "farad"], CAPACITANCE, 1, 1),
    (&["uF", "microfarad"], CAPACITANCE, 1, 1_000_000),
    (&["nF", "nanofarad"], CAPACITANCE, 1, 1_000_000_000),
    (&["pF", "picofarad"], CAPACITANCE, 1, 1_000_000_000_000),
    (&["T", "tesla"], FIELD, 1, 1),
    (&["mT", "millitesla"], FIELD, 1, 1_000),
    (&["Wb", "weber"], FLUX, 1, 1),
    (&["H", "henry"], INDUCTANCE, 1, 1),
    (&["mH", "millihenry"], INDUCTANCE, 1, 1_000),
    (&["$", "dollar", "usd", "buck"], MONEY, 1, 1),
    (&["\u{a2}", "cent"], MONEY, 1, 100),
    (&["bit"], BITS, 1, 1),
    (&["B", "byte"], BITS, 8, 1),
    (&["kB", "kilobyte", "KB"], BITS, 8_000, 1),
    (&["MB", "megabyte"], BITS, 8_000_000, 1),
    (&["GB", "gigabyte"], BITS, 8_000_000_000, 1),
    (&["TB", "terabyte"], BITS, 8_000_000_000_000, 1),
    (&["fl oz", "fluid ounce"], VOLUME, 295_735_295_625, 10_000_000_000_000_000),
    (&["tbsp", "tablespoon"], VOLUME, 1_478_676_478_125, 100_000_000_000_000_000),
    (&["cup"], VOLUME, 2_365_882_365, 10_000_000_000_000),
    (&["Mohm", "MOmega", "megaohm"], RESISTANCE, 1_000_000, 1),
    (&["mohm", "mOmega", "milliohm"], RESISTANCE, 1, 1_000),
    (&["permille", "per mille", "per mil"], NONE, 1, 1_000),
    (&["ppm", "parts per million"], NONE, 1, 1_000_000),
    (&["ppb", "parts per billion"], NONE, 1, 1_000_000_000),
    (&["rev", "revolution"], NONE, 1, 1),
    (&["eV", "electronvolt", "electron-volt"], ENERGY, 1_602_176_634, 10_000_000_000_000_000_000_000_000_000),
    (&["keV"], ENERGY, 1_602_176_634, 10_000_000_000_000_000_000_000_000),
    (&["MeV"], ENERGY, 1_602_176_634, 10_000_000_000_000_000_000_000),
    (&["GeV"], ENERGY, 1_602_176_634, 10_000_000_000_000_000_000),
    (&["pm", "picometer", "picometre"], LENGTH, 1, 1_000_000_000_000),
    (&["hPa", "hectopascal"], PRESSURE, 100, 1),
    (&["GPa", "gigapascal"], PRESSURE, 1_000_000_000, 1),
    (&["GW", "gigawatt"], POWER, 1_000_000_000, 1),
    (&["Wh", "watt-hour", "watthour"], ENERGY, 3_600, 1),
    (&["kn", "knot"], SPEED, 1_852, 3_600),
    (&["decade"], TIME, 315_569_520, 1),
    (&["century", "centurie"], TIME, 3_155_695_200, 1),
    (&["fortnight"], TIME, 1_209_600, 1),
    (&["uA", "microampere"], CURRENT, 1, 1_000_000),
    (&["g/mL"], [-3, 1, 0, 0, 0, 0, 0, 0, 0], 1_000, 1),
    (&["mmHg"], PRESSURE, 133_322, 1_000),
    (&["psi"], PRESSURE, 6_894_757, 1_000),
    (&["M", "molar"], [-3, 0, 0, 0, 0, 1, 0, 0, 0], 1_000, 1),
];

/// Signs of currencies and their names.
pub(super) const CURRENCIES: [(char, &str); 16] = [
    ('$', "$"),
    ('\u{20ac}', "euro"),
    ('\u{a3}', "pound sterling"),
    ('\u{a5}', "yen"),
    ('\u{20b9}', "rupee"),
    ('\u{20a8}', "rupee"),
    ('\u{20a9}', "won"),
    ('\u{20bd}', "ruble"),
    ('\u{20ba}', "lira"),
    ('\u{20b1}', "peso"),
    ('\u{e3f}', "baht"),
    ('\u{20ab}', "dong"),
    ('\u{20a6}', "naira"),
    ('\u{20aa}', "shekel"),
    ('\u{20b4}', "hryvnia"),
    ('\u{20bf}', "bitcoin"),
];

/// Other names and codes of currencies.
const MONEYS: [(&str, &str); 34] = [
    ("usd", "$"),
    ("us$", "$"),
    ("us", "$"),
    ("eur", "euro"),
    ("gbp", "pound sterling"),
    ("pounds sterling", "pound sterling"),
    ("british pounds", "pound sterling"),
    ("jpy", "yen"),
    ("japanese yen", "yen"),
    ("inr", "rupee"),
    ("rs", "rupee"),
    ("indian rupees", "rupee"),
    ("rmb", "yuan"),
    ("cny", "yuan"),
    ("renminbi", "yuan"),
    ("krw", "won"),
    ("rub", "ruble"),
    ("roubles", "ruble"),
    ("rouble", "ruble"),
    ("chf", "franc"),
    ("swiss francs", "franc"),
    ("brl", "real"),
    ("r", "real"),
    ("reais", "real"),
    ("mxn", "peso"),
    ("php", "peso"),
    ("try", "lira"),
    ("thb", "baht"),
    ("sek", "krona"),
    ("kronor", "krona"),
    ("pln", "zloty"),
    ("aud", "australian dollar"),
    ("cad", "canadian dollar"),
    ("australian dollars", "australian dollar"),
];

/// The currency that a name or code says.
pub(super) fn money(name: &str) -> Option<&'static str> {
    let lower = name.trim_end_matches('.').to_lowercase();
    MONEYS.iter().find(|m| m.0 == lower).map(|m| m.1)
}

/// What stands behind a number.
#[derive(Clone, PartialEq, Debug)]
pub enum Unit {
    /// Percent.
    Percent,
    /// Degrees of arc.
    Degree,
    /// A measure: what, and its size in SI units.
    Measure(Dimension, Rational),
    /// The digits and the base they were written in.
    Base(String, u32),
    /// Any other word, in singular and lower case: apples, ways, points, a foreign currency.
    Word(String),
}

/// The unit of one word, and whether it is told only by its case: a sign such as `m` or `kg`.
pub(super) fn word(text: &str) -> Option<(Dimension, Rational)> {
    entry(text).map(|e| (e.1, Rational::new(e.2.into(), e.3.into())))
}

fn entry(text: &str) -> Option<&'static Entry> {
    let text = text.trim_end_matches('.');
    if let Some(entry) = UNITS.iter().find(|e| e.0.contains(&text)) {
        return Some(entry);
    }
    let lower = text.to_lowercase();
    let long = |name: &&&str| name.len() > 2;
    let named = |text: &str| UNITS.iter().find(|e| e.0.iter().filter(long).any(|n| n.eq_ignore_ascii_case(text)));
    named(&lower).or_else(|| lower.strip_suffix('s').and_then(named))
}

/// True for a sign that is a unit wherever it stands right behind a number: no variable is called `cm`.
pub(super) fn is_sign(text: &str) -> bool {
    text.len() > 1 && UNITS.iter().any(|e| e.0[0] == text) && !matches!(text, "in" | "pt" | "ha" | "ac" | "ly" | "mo")
}

/// A word in singular.
fn singular(word: &str) -> String {
    let lower = word.to_lowercase();
    const IRREGULAR: [(&str, &str); 9] = [
        ("people", "person"),
        ("men", "man"),
        ("women", "woman"),
        ("children", "child"),
        ("mice", "mouse"),
        ("dice", "die"),
        ("geese", "goose"),
        ("teeth", "tooth"),
        ("halves", "half"),
    ];
    if let Some((_, one)) = IRREGULAR.iter().find(|p| p.0 == lower) {
        return (*one).to_owned();
    }
    if let Some(stem) = lower.strip_suffix("ies").filter(|s| s.len() > 2) {
        return format!("{stem}y");
    }
    if lower.len() > 3 && lower.ends_with('s') && !lower.ends_with("ss") {
        let stem = &lower[..lower.len() - 1];
        let es = ["xe", "che", "she", "sse"].iter().any(|e| stem.ends_with(e));
        return if es { stem[..stem.len() - 1].to_owned() } else { stem.to_owned() };
    }
    lower
}

/// One part of a compound unit: a name, its power.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) power: i32,
}

/// The unit a run of words and signs says.
pub(super) fn unit(parts: &[Part]) -> Option<Unit> {
    if let [Part { name, power: 1 }] = parts {
        if let Some(known) = money(name).filter(|_| name.len() > 2 && word(name).is_none()) {
            return Some(if known == "$" {
                Unit::Measure(MONEY, Rational::from_integer(1.into()))
            } else {
                Unit::Word(known.to_owned())
            });
        }
        match name.to_lowercase().as_str() {
            "%" | "percent" | "percentage" | "pct" | "per cent" | "percentage point" | "percentage points" => {
                return Some(Unit::Percent);
            }
            "degree" | "degrees" | "deg" | "circ" => return Some(Unit::Degree),
            _ => {}
        }
    }
    // Names of two words.
    if parts.len() > 1 && parts.iter().all(|p| p.power == 1) {
        let whole = parts.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(" ");
        if let Some((dimension, size)) = word(&whole) {
            return Some(Unit::Measure(dimension, size));
        }
    }
    let (mut dimension, mut size) = (NONE, Rational::from_integer(1.into()));
    let mut measured = true;
    for part in parts {
        // Square meters, cubic feet.
        let lower = part.name.to_lowercase();
        let (name, power) = match lower.split_once(' ') {
            Some(("square" | "sq" | "sq.", rest)) => (&part.name[part.name.len() - rest.len()..], 2),
            Some(("cubic" | "cu" | "cu.", rest)) => (&part.name[part.name.len() - rest.len()..], 3),
            _ => (part.name.as_str(), 1),
        };
        let Some((d, s)) = word(name) else {
            measured = false;
            break;
        };
        let power = power * part.power;
        if power.abs() > 9 {
            return None;
        }
        for (total, one) in dimension.iter_mut().zip(d) {
            *total = total.saturating_add(one.saturating_mul(power as i8));
        }
        size *= s.pow(power);
    }
    if measured && !parts.is_empty() {
        return Some(Unit::Measure(dimension, size));
    }
    let words: Vec<String> = parts
        .iter()
        .map(|p| {
            let power = if p.power == 1 { String::new() } else { format!("^{}", p.power) };
            let last = p.name.rsplit(' ').next().unwrap_or(&p.name);
            let head = &p.name[..p.name.len() - last.len()];
            // Minutes and min are one in pages per minute, too.
            let sign = entry(&p.name).map(|e| e.0[0].to_owned());
            format!("{}{power}", sign.unwrap_or_else(|| head.to_lowercase() + &singular(last)))
        })
        .collect();
    Some(Unit::Word(words.join(" ").trim().to_owned()))
}

/// True when two unknown units may be the same thing: one names it more closely.
pub(super) fn same_word(a: &str, b: &str) -> bool {
    // What it is counted by must be the same: pages per minute are no pages per hour.
    let per = |t: &str| t.split(' ').filter(|w| w.contains('^')).map(str::to_owned).collect::<Vec<_>>();
    if per(a) != per(b) && !per(a).is_empty() && !per(b).is_empty() {
        return false;
    }
    let last = |t: &str| t.rsplit(' ').next().unwrap_or(t).to_owned();
    let first = |t: &str| t.split(' ').next().unwrap_or(t).to_owned();
    a == b || last(a) == last(b) || first(a) == first(b) || last(a) == first(b) || first(a) == last(b)
}
