//! One spelling for a word: British and American, long and short forms, singular and plural.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::tables::replaced;

/// Parts of words, British and American. Only the beginnings of a word's family stand here: `colour` is also
/// `colourless` and `discoloured`.
static PARTS: [(&str, &str); 116] = [
    ("colour", "color"),
    ("labour", "labor"),
    ("favour", "favor"),
    ("neighbour", "neighbor"),
    ("behaviour", "behavior"),
    ("vapour", "vapor"),
    ("harbour", "harbor"),
    ("humour", "humor"),
    ("armour", "armor"),
    ("ardour", "ardor"),
    ("clamour", "clamor"),
    ("candour", "candor"),
    ("demeanour", "demeanor"),
    ("endeavour", "endeavor"),
    ("fervour", "fervor"),
    ("glamour", "glamor"),
    ("honour", "honor"),
    ("odour", "odor"),
    ("parlour", "parlor"),
    ("rancour", "rancor"),
    ("rigour", "rigor"),
    ("rumour", "rumor"),
    ("saviour", "savior"),
    ("savour", "savor"),
    ("splendour", "splendor"),
    ("succour", "succor"),
    ("tumour", "tumor"),
    ("valour", "valor"),
    ("vigour", "vigor"),
    ("mould", "mold"),
    ("moult", "molt"),
    ("smoulder", "smolder"),
    ("centre", "center"),
    ("centring", "centering"),
    ("metre", "meter"),
    ("litre", "liter"),
    ("fibre", "fiber"),
    ("theatre", "theater"),
    ("calibre", "caliber"),
    ("lustre", "luster"),
    ("meagre", "meager"),
    ("sombre", "somber"),
    ("spectre", "specter"),
    ("sceptre", "scepter"),
    ("titre", "titer"),
    ("ochre", "ocher"),
    ("goitre", "goiter"),
    ("sabre", "saber"),
    ("sepulchre", "sepulcher"),
    ("manoeuvre", "maneuver"),
    ("manoeuvring", "maneuvering"),
    ("gramme", "gram"),
    ("moustache", "mustache"),
    ("yoghurt", "yogurt"),
    ("yoghourt", "yogurt"),
    ("draught", "draft"),
    ("doughnut", "donut"),
    ("omelette", "omelet"),
    ("mollusc", "mollusk"),
    ("carburettor", "carburetor"),
    ("woollen", "woolen"),
    ("liquorice", "licorice"),
    ("speciality", "specialty"),
    ("caesarean", "cesarean"),
    ("ischaem", "ischem"),
    ("hyaena", "hyena"),
    ("pharmacopoeia", "pharmacopeia"),
    ("kerosine", "kerosene"),
    ("logue", "log"),
    ("haem", "hem"),
    ("anaem", "anem"),
    ("aemia", "emia"),
    ("anaesth", "anesth"),
    ("aesthet", "esthet"),
    ("caesium", "cesium"),
    ("palaeo", "paleo"),
    ("archaeo", "archeo"),
    ("paedia", "pedia"),
    ("paedic", "pedic"),
    ("mediaeval", "medieval"),
    ("gynaec", "gynec"),
    ("faec", "fec"),
    ("aetio", "etio"),
    ("caecum", "cecum"),
    ("caecilian", "cecilian"),
    ("praecip", "precip"),
    ("haeal", "heal"),
    ("oestr", "estr"),
    ("foet", "fet"),
    ("rrhoea", "rrhea"),
    ("oesoph", "esoph"),
    ("amoeb", "ameb"),
    ("coeliac", "celiac"),
    ("coelom", "celom"),
    ("oedema", "edema"),
    ("homoeo", "homeo"),
    ("sulph", "sulf"),
    ("aluminium", "aluminum"),
    ("plough", "plow"),
    ("programme", "program"),
    ("sceptic", "skeptic"),
    ("aeroplane", "airplane"),
    ("artefact", "artifact"),
    ("jewellery", "jewelry"),
    ("skilful", "skillful"),
    ("wilful", "willful"),
    ("fulfilment", "fulfillment"),
    ("instalment", "installment"),
    ("enrolment", "enrollment"),
    ("pyjama", "pajama"),
    ("defence", "defense"),
    ("offence", "offense"),
    ("licence", "license"),
    ("pretence", "pretense"),
    ("judgement", "judgment"),
    ("acknowledgement", "acknowledgment"),
];

/// Whole words of the same meaning, each in one form.
const WORDS: [(&str, &str); 131] = [
    ("magnified", "enlarged"),
    ("ave", "avenue"),
    ("rd", "road"),
    ("blvd", "boulevard"),
    ("hwy", "highway"),
    ("logarithmic", "log"),
    ("kid", "child"),
    ("kids", "children"),
    ("plane", "airplane"),
    ("chart", "graph"),
    ("charts", "graphs"),
    ("beneath", "under"),
    ("underneath", "under"),
    ("below", "under"),
    ("erect", "upright"),
    ("diminished", "reduced"),
    ("minified", "reduced"),
    ("grey", "gray"),
    ("greyish", "grayish"),
    ("tyre", "tire"),
    ("storey", "story"),
    ("storeys", "stories"),
    ("enrol", "enroll"),
    ("fulfil", "fulfill"),
    ("distil", "distill"),
    ("instil", "instill"),
    ("chilli", "chili"),
    ("gauge", "gage"),
    ("cypher", "cipher"),
    ("dyke", "dike"),
    ("phial", "vial"),
    ("monotonically", "monotone"),
    ("monotonic", "monotone"),
    ("std", "standard"),
    ("bonding", "bond"),
    ("amongst", "among"),
    ("whilst", "while"),
    ("kerb", "curb"),
    ("cosy", "cozy"),
    ("axe", "ax"),
    ("disk", "disc"),
    ("maths", "mathematics"),
    ("math", "mathematics"),
    ("practise", "practice"),
    ("whisky", "whiskey"),
    ("ageing", "aging"),
    ("learnt", "learned"),
    ("burnt", "burned"),
    ("spelt", "spelled"),
    ("enquiry", "inquiry"),
    ("enquiries", "inquiries"),
    ("gaol", "jail"),
    ("mum", "mom"),
    ("towards", "toward"),
    ("upwards", "up"),
    ("upward", "up"),
    ("downwards", "down"),
    ("downward", "down"),
    ("forwards", "forward"),
    ("backwards", "backward"),
    ("northwards", "north"),
    ("northward", "north"),
    ("southwards", "south"),
    ("southward", "south"),
    ("eastwards", "east"),
    ("eastward", "east"),
    ("westwards", "west"),
    ("westward", "west"),
    ("inwards", "in"),
    ("inward", "in"),
    ("outwards", "out"),
    ("outward", "out"),
    ("leftwards", "left"),
    ("leftward", "left"),
    ("rightwards", "right"),
    ("rightward", "right"),
    ("anticlockwise", "counterclockwise"),
    ("tranquillity", "tranquility"),
    ("schroedinger", "schrodinger"),
    ("schroedingers", "schrodingers"),
    ("moebius", "mobius"),
    ("goedel", "godel"),
    ("goedels", "godels"),
    ("roentgen", "rontgen"),
    ("roentgens", "rontgens"),
    ("kaehler", "kahler"),
    ("hoelder", "holder"),
    ("aangstrom", "angstrom"),
    ("angstroem", "angstrom"),
    ("oersted", "orsted"),
    ("lhospital", "lhopital"),
    ("lhospitals", "lhopitals"),
    ("cheque", "check"),
    ("mt", "mount"),
    ("mts", "mountains"),
    ("mtn", "mountain"),
    ("st", "saint"),
    ("dr", "doctor"),
    ("mr", "mister"),
    ("prof", "professor"),
    ("vs", "versus"),
    ("approx", "approximately"),
    ("dept", "department"),
    ("govt", "government"),
    ("max", "maximum"),
    ("min", "minimum"),
    ("avg", "average"),
    ("temp", "temperature"),
    ("temps", "temperatures"),
    ("eqn", "equation"),
    ("soln", "solution"),
    ("freq", "frequency"),
    ("coeff", "coefficient"),
    ("esp", "especially"),
    ("and/or", "or"),
    ("&", "and"),
    ("%", "percent"),
    ("per-cent", "percent"),
    ("ok", "okay"),
    ("autumn", "fall"),
    ("just", "only"),
    ("solely", "only"),
    ("alone", "only"),
    ("merely", "only"),
    ("bigger", "larger"),
    ("greater", "larger"),
    ("biggest", "largest"),
    ("greatest", "largest"),
    // No -ise.
    ("crises", "crises"),
    ("clockwise", "clockwise"),
    ("counterclockwise", "counterclockwise"),
];

/// Everyday things under one name, in singular. Words that mean something else as well (plane, film, bin) stand in the
/// table of phrases.
const THINGS: [(&str, &str); 29] = [
    ("bike", "bicycle"),
    ("fridge", "refrigerator"),
    ("phone", "telephone"),
    ("photo", "photograph"),
    ("couch", "sofa"),
    ("settee", "sofa"),
    ("motorbike", "motorcycle"),
    ("lorry", "truck"),
    ("automobile", "car"),
    ("trouser", "pant"),
    ("tv", "television"),
    ("taxicab", "taxi"),
    ("windscreen", "windshield"),
    ("burger", "hamburger"),
    ("courgette", "zucchini"),
    ("aubergine", "eggplant"),
    ("maize", "corn"),
    ("rucksack", "backpack"),
    ("knapsack", "backpack"),
    ("railroad", "railway"),
    ("streetcar", "tram"),
    ("motorway", "highway"),
    ("spectacle", "glasses"),
    ("eyeglass", "glasses"),
    ("firefighter", "fireman"),
    ("lady", "woman"),
    ("policeman", "cop"),
    ("wooden", "wood"),
    ("metallic", "metal"),
];

/// Plurals that follow no rule, beside their singulars.
const IRREGULAR: [(&str, &str); 40] = [
    ("man", "men"),
    ("woman", "women"),
    ("child", "children"),
    ("person", "people"),
    ("foot", "feet"),
    ("tooth", "teeth"),
    ("goose", "geese"),
    ("mouse", "mice"),
    ("louse", "lice"),
    ("ox", "oxen"),
    ("die", "dice"),
    ("leaf", "leaves"),
    ("half", "halves"),
    ("calf", "calves"),
    ("wolf", "wolves"),
    ("knife", "knives"),
    ("life", "lives"),
    ("wife", "wives"),
    ("loaf", "loaves"),
    ("shelf", "shelves"),
    ("thief", "thieves"),
    ("hoof", "hooves"),
    ("matrix", "matrices"),
    ("vertex", "vertices"),
    ("vortex", "vortices"),
    ("index", "indices"),
    ("apex", "apices"),
    ("appendix", "appendices"),
    ("axis", "axes"),
    ("genus", "genera"),
    ("corpus", "corpora"),
    ("criterion", "criteria"),
    ("phenomenon", "phenomena"),
    ("polyhedron", "polyhedra"),
    ("tetrahedron", "tetrahedra"),
    ("octahedron", "octahedra"),
    ("mitochondrion", "mitochondria"),
    ("spermatozoon", "spermatozoa"),
    ("stoma", "stomata"),
    ("datum", "data"),
];

/// Words and names to which an `s` gives another word, not a plural.
const SINGULAR: [&str; 43] = [
    "odd",
    "mar",
    "new",
    "mean",
    "good",
    "wale",
    "custom",
    "arm",
    "glas",
    "les",
    "doe",
    "thi",
    "hi",
    "mas",
    "physic",
    "ethic",
    "statistic",
    "mechanic",
    "adam",
    "william",
    "robert",
    "edward",
    "steven",
    "peter",
    "roger",
    "richard",
    "phillip",
    "jone",
    "evan",
    "owen",
    "david",
    "daniel",
    "michael",
    "john",
    "simon",
    "jacob",
    "andrew",
    "hughe",
    "stephen",
    "parkin",
    "niger",
    "lao",
    "harri",
];

/// Whether `many` is the plural of `one`, or the form of a verb with an `s`.
fn plural(one: &str, many: &str) -> bool {
    if one.len() < 3 || many.len() <= one.len().saturating_sub(2) || SINGULAR.contains(&one) {
        return false;
    }
    if IRREGULAR.iter().any(|&(o, m)| many == m && one.ends_with(o) && one.len() == o.len()) {
        return true;
    }
    let swapped = |from: &str, to: &str| one.strip_suffix(from).is_some_and(|s| many.strip_suffix(to) == Some(s));
    let hissing = ["s", "x", "z", "ch", "sh"].iter().any(|e| one.ends_with(e));
    if hissing {
        return many.strip_suffix("es") == Some(one)
            || (one.len() > 4 && (swapped("sis", "ses") || swapped("us", "i")));
    }
    let vowel = one.as_bytes()[one.len() - 2];
    if one.ends_with('y') && !b"aeiou".contains(&vowel) {
        return swapped("y", "ies");
    }
    (one.ends_with('o') && many.strip_suffix("es") == Some(one))
        || many.strip_suffix('s') == Some(one)
        || (one.len() > 4 && (swapped("um", "a") || swapped("a", "ae")))
}

/// Whether two words, each in its one spelling, are one word in singular or plural.
pub(super) fn alike(a: &str, b: &str) -> bool {
    a == b || plural(a, b) || plural(b, a)
}

/// The one spelling of a word in small letters.
pub(super) fn one(word: &str) -> String {
    static SAME: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| WORDS.into_iter().collect());
    if let Some(same) = SAME.get(word) {
        return (*same).to_owned();
    }
    let thing = |(name, _): &&(&str, &str)| word.starts_with(name.trim_end_matches('y')) && alike(name, word);
    if let Some((_, same)) = THINGS.iter().find(thing) {
        return (*same).to_owned();
    }
    if word.len() < 5 || !word.is_ascii() {
        return word.to_owned();
    }
    let mut word = replaced(word, &PARTS).into_owned();
    // Linearly, inversely: the adverb says what its adjective does.
    const ADJECTIVES: [&str; 9] = ["dom", "al", "ar", "ous", "ive", "ent", "ant", "erse", "irect"];
    if let Some(stem) = word.strip_suffix("ly").filter(|s| ADJECTIVES.iter().any(|e| s.ends_with(e))) {
        word.truncate(stem.len());
    }
    // -ise, -isation, -yse: exact words do not matter here, only that both spellings end alike.
    for (from, to) in [
        ("isations", "izations"),
        ("isation", "ization"),
        ("ising", "izing"),
        ("ises", "izes"),
        ("ised", "ized"),
        ("iser", "izer"),
        ("ise", "ize"),
        ("ysing", "yzing"),
        ("ysed", "yzed"),
        ("yser", "yzer"),
        ("yse", "yze"),
    ] {
        if let Some(stem) = word.strip_suffix(from).filter(|s| s.len() > 2) {
            word = format!("{stem}{to}");
            break;
        }
    }
    // travelled, modelling: an l is doubled behind an unstressed syllable.
    for end in ["ed", "ing", "er", "ers", "or", "ous"] {
        let Some(stem) = word.strip_suffix(end).and_then(|s| s.strip_suffix('l')) else { continue };
        let syllables = |t: &str| {
            let vowel = |c: u8| b"aeiouy".contains(&c);
            let bytes = t.as_bytes();
            (0..bytes.len()).filter(|&n| vowel(bytes[n]) && (n == 0 || !vowel(bytes[n - 1]))).count()
        };
        if ["el", "al", "il"].iter().any(|e| stem.ends_with(e)) && syllables(stem) > 1 {
            word = format!("{stem}{end}");
            break;
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::{alike, one};

    #[test]
    fn british_and_american_spellings_are_one() {
        for (a, b) in [
            ("colour", "color"),
            ("discoloured", "discolored"),
            ("kilometres", "kilometers"),
            ("polarisation", "polarization"),
            ("analyse", "analyze"),
            ("travelled", "traveled"),
            ("catalogue", "catalog"),
            ("haemoglobin", "hemoglobin"),
            ("sulphuric", "sulfuric"),
            ("defence", "defense"),
        ] {
            assert_eq!(one(a), one(b));
        }
        for (a, b) in [("filled", "filed"), ("hour", "hor"), ("caesium", "calcium"), ("sulphur", "sulfate")] {
            assert_ne!(one(a), one(b));
        }
    }

    #[test]
    fn plurals_are_their_singulars_and_no_other_word() {
        for (a, b) in [
            ("electron", "electrons"),
            ("box", "boxes"),
            ("city", "cities"),
            ("lens", "lenses"),
            ("vertices", "vertex"),
            ("analysis", "analyses"),
            ("nucleus", "nuclei"),
            ("larva", "larvae"),
            ("bacterium", "bacteria"),
            ("mitochondria", "mitochondrion"),
            ("potatoes", "potato"),
        ] {
            assert!(alike(a, b), "{a} {b}");
        }
        for (a, b) in [("mar", "mars"), ("new", "news"), ("prince", "princess"), ("mas", "mass"), ("as", "a")] {
            assert!(!alike(a, b), "{a} {b}");
        }
    }
}
