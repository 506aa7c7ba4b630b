//! Molecules without rings, but for the benzene ring at an end, as trees of their atoms but hydrogen; and condensed
//! formulas, `CH3CH(OH)CH3`, `C2H5OH`, `CH2=CHCl`, as such trees.

/// Most atoms of a molecule.
const MAX_ATOMS: usize = 40;

/// Atoms and groups that are read as one atom, and how many bonds each has.
const VALENCES: [(&str, u8); 13] = [
    ("C", 4),
    ("N", 3),
    ("O", 2),
    ("S", 2),
    ("F", 1),
    ("Cl", 1),
    ("Br", 1),
    ("I", 1),
    ("C6H5", 1),
    ("o-C6H4", 2),
    ("m-C6H4", 2),
    ("p-C6H4", 2),
    ("NO2", 1),
];

#[derive(Clone, Default, Debug)]
pub(super) struct Molecule {
    /// Each atom, and its hydrogens where they are written.
    atoms: Vec<(&'static str, Option<u8>)>,
    bonds: Vec<(usize, usize, u8)>,
}

impl Molecule {
    pub(super) fn atom(&mut self, kind: &str, hydrogens: Option<u8>) -> Option<usize> {
        let kind = VALENCES.iter().find(|v| v.0 == kind)?.0;
        self.atoms.push((kind, hydrogens));
        (self.atoms.len() <= MAX_ATOMS).then(|| self.atoms.len() - 1)
    }

    pub(super) fn bond(&mut self, a: usize, b: usize, order: u8) {
        self.bonds.push((a, b, order));
    }

    /// Makes a bond between neighbours one of a higher order.
    pub(super) fn raise(&mut self, a: usize, b: usize, order: u8) -> Option<()> {
        self.bonds.iter_mut().find(|x| (x.0, x.1) == (a, b) || (x.1, x.0) == (a, b))?.2 = order;
        Some(())
    }

    /// The atom that was made last.
    pub(super) fn last(&self) -> Option<usize> {
        self.atoms.len().checked_sub(1)
    }

    /// Binds the first atom of a group to an atom of this molecule; the group's hydrogens stay as they were.
    pub(super) fn graft(&mut self, group: &Molecule, at: usize) -> Option<()> {
        let from = self.atoms.len();
        self.atoms.extend(&group.atoms);
        self.bonds.extend(group.bonds.iter().map(|b| (b.0 + from, b.1 + from, b.2)));
        self.bonds.push((at, from, 1));
        (self.atoms.len() <= MAX_ATOMS).then_some(())
    }

    fn free(&self, n: usize) -> i32 {
        let valence = VALENCES.iter().find(|v| v.0 == self.atoms[n].0).map_or(0, |v| i32::from(v.1));
        let used: i32 = self.bonds.iter().filter(|b| b.0 == n || b.1 == n).map(|b| i32::from(b.2)).sum();
        valence - used - i32::from(self.atoms[n].1.unwrap_or(0))
    }

    /// One text for each molecule, however it was written; `None` where the bonds do not fit.
    pub(super) fn key(&self) -> Option<String> {
        let fits = |n: usize| match self.atoms[n].1 {
            Some(_) => self.free(n) == 0,
            None => self.free(n) >= 0,
        };
        let tree = self.bonds.len() + 1 == self.atoms.len() && (0..self.atoms.len()).all(fits);
        if !tree || !self.atoms.iter().any(|a| a.0.contains('C') && a.0 != "Cl") {
            return None;
        }
        (0..self.atoms.len()).map(|root| self.branch(root, usize::MAX)).min()
    }

    fn branch(&self, at: usize, from: usize) -> String {
        let mut parts: Vec<String> = self
            .bonds
            .iter()
            .filter_map(|&(a, b, order)| {
                let next = if a == at { b } else { (b == at).then_some(a)? };
                (next != from).then(|| format!("{order}{}", self.branch(next, at)))
            })
            .collect();
        parts.sort();
        format!("{}({})", self.atoms[at].0, parts.concat())
    }
}

/// Groups of a condensed formula at the beginning of a text: the longer of two that begin alike first.
#[derive(Clone, Copy)]
enum Group {
    /// An atom of the chain with its hydrogens.
    Link(&'static str, u8),
    /// An atom at the end of a branch.
    End(&'static str),
    /// A chain of carbon without branches.
    Chain(u8),
    Carbonyl,
    Carboxyl,
    Ester,
    Aldehyde,
    Nitrile,
}

const GROUPS: [(&str, Group); 31] = [
    ("COOH", Group::Carboxyl),
    ("CO2H", Group::Carboxyl),
    ("COO", Group::Ester),
    ("CO2", Group::Ester),
    ("C6H5", Group::Link("C6H5", 0)),
    ("C5H11", Group::Chain(5)),
    ("C4H9", Group::Chain(4)),
    ("C3H7", Group::Chain(3)),
    ("C2H5", Group::Chain(2)),
    ("CHO", Group::Aldehyde),
    ("CN", Group::Nitrile),
    ("CH3", Group::Link("C", 3)),
    ("CH2", Group::Link("C", 2)),
    ("CH", Group::Link("C", 1)),
    ("H3C", Group::Link("C", 3)),
    ("H2C", Group::Link("C", 2)),
    ("HC", Group::Link("C", 1)),
    ("Cl", Group::End("Cl")),
    ("CO", Group::Carbonyl),
    ("C", Group::Link("C", 0)),
    ("NH2", Group::Link("N", 2)),
    ("H2N", Group::Link("N", 2)),
    ("NH", Group::Link("N", 1)),
    ("NO2", Group::End("NO2")),
    ("N", Group::Link("N", 0)),
    ("HO", Group::Link("O", 1)),
    ("OH", Group::End("O")),
    ("O", Group::Link("O", 0)),
    ("Br", Group::End("Br")),
    ("F", Group::End("F")),
    ("I", Group::End("I")),
];

/// A condensed formula, its indices on the line; the bonds must fit the hydrogens that it has.
pub(super) fn condensed(text: &str) -> Option<Molecule> {
    let mut reader = Reader { molecule: Molecule::default(), waiting: Vec::new(), order: 1 };
    // Methanal and methanoic acid begin with a hydrogen.
    let text = text.strip_prefix('H').filter(|t| t.starts_with("CHO") || t.starts_with("COO")).map_or_else(
        || text.to_owned(),
        |t| match t.strip_prefix("CHO") {
            Some(rest) => format!("CH2=O{rest}"),
            None => format!("O=CH{}", &t[2..]),
        },
    );
    (text.len() < 80 && text.starts_with(['C', '(', 'H', 'N', 'O', 'B', 'F', 'I'])).then_some(())?;
    let tip = reader.chain(&text, None, 0)?;
    (tip.is_some() && reader.waiting.is_empty()).then_some(reader.molecule)
}

struct Reader {
    molecule: Molecule,
    /// Atoms that stand before the one they are bound to.
    waiting: Vec<usize>,
    /// The order of the next bond.
    order: u8,
}

impl Reader {
    /// Reads groups behind the atom `tip`; gives the last atom of the chain.
    fn chain(&mut self, text: &str, mut tip: Option<usize>, depth: usize) -> Option<Option<usize>> {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if matches!(c, '-' | '=' | '#') {
                self.order = if c == '=' { 2 } else { 1 + 2 * u8::from(c == '#') };
                rest = &rest[1..];
                continue;
            }
            if c == '(' {
                let close = rest.find(')')?;
                let inner = rest.get(1..close)?;
                let (times, behind) = count(&rest[close + 1..])?;
                (depth == 0 && times < 13).then_some(())?;
                for _ in 0..times {
                    match tip {
                        // Two bonds make it a part of the chain.
                        Some(_) if inner == "CH2" => tip = self.chain(inner, tip, 1)?,
                        Some(_) => _ = self.chain(inner, tip, 1)?,
                        None => {
                            let first = self.molecule.atoms.len();
                            let waiting = std::mem::take(&mut self.waiting);
                            self.chain(inner, None, 1)??;
                            self.waiting = waiting;
                            self.waiting.push(first);
                        }
                    }
                }
                rest = behind;
                continue;
            }
            let fits = |g: &&(&str, Group)| {
                let behind = rest.strip_prefix(g.0);
                match g.1 {
                    // Elsewhere a hydroxyl or an ether follows the carbon, and what would be a nitrile an amine.
                    Group::Carbonyl => behind.is_some_and(|b| !b.starts_with('H')),
                    Group::Aldehyde | Group::Nitrile => behind == Some(""),
                    Group::Ester => behind.is_some_and(|b| b.starts_with(['C', '('])),
                    _ => behind.is_some(),
                }
            };
            let (sign, group) = GROUPS.iter().find(fits)?;
            rest = &rest[sign.len()..];
            tip = self.group(*group, tip, &mut rest)?;
        }
        Some(tip)
    }

    fn group(&mut self, group: Group, tip: Option<usize>, rest: &mut &str) -> Option<Option<usize>> {
        let double = |m: &mut Molecule, c: usize| -> Option<()> {
            let o = m.atom("O", Some(0))?;
            m.bond(c, o, 2);
            Some(())
        };
        Some(Some(match group {
            Group::Link(kind, hydrogens) => self.link(kind, hydrogens, tip)?,
            Group::End(kind) => {
                let (times, behind) = count(rest)?;
                *rest = behind;
                for _ in 0..times.min(4) {
                    let end = self.molecule.atom(kind, Some(u8::from(kind == "O")))?;
                    match tip {
                        Some(t) => self.molecule.bond(t, end, std::mem::replace(&mut self.order, 1)),
                        None => self.waiting.push(end),
                    }
                }
                return Some(tip);
            }
            Group::Chain(n) => {
                // The free bond is at the first carbon where something stands before it, else at the last.
                let ends = |k: u8| if k == if tip.is_some() { n - 1 } else { 0 } { 3 } else { 2 };
                let mut at = tip;
                for k in 0..n {
                    at = Some(self.link("C", ends(k), at)?);
                }
                at?
            }
            Group::Carbonyl => {
                let c = self.link("C", 0, tip)?;
                double(&mut self.molecule, c)?;
                c
            }
            Group::Aldehyde => {
                let c = self.link("C", 1, tip)?;
                double(&mut self.molecule, c)?;
                c
            }
            Group::Carboxyl | Group::Ester => {
                let c = self.link("C", 0, tip)?;
                double(&mut self.molecule, c)?;
                self.link("O", u8::from(matches!(group, Group::Carboxyl)), Some(c))?
            }
            Group::Nitrile => {
                let c = self.link("C", 0, tip)?;
                self.order = 3;
                self.link("N", 0, Some(c))?
            }
        }))
    }

    fn link(&mut self, kind: &str, hydrogens: u8, tip: Option<usize>) -> Option<usize> {
        let at = self.molecule.atom(kind, Some(hydrogens))?;
        let order = std::mem::replace(&mut self.order, 1);
        if let Some(t) = tip {
            self.molecule.bond(t, at, order);
        }
        for before in std::mem::take(&mut self.waiting) {
            self.molecule.bond(before, at, 1);
        }
        Some(at)
    }
}

/// The number at the beginning of a text, one where there is none.
fn count(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let n = if end == 0 { 1 } else { text[..end].parse().ok()? };
    Some((n, &text[end..]))
}
