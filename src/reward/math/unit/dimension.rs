//! What a unit measures: powers of the base quantities.

/// Base quantities: the seven of the SI, then angle, information and level (of sound, of power), and tags that keep
/// apart units of one dimension that measure different things: cycles (Hz), decays (Bq), absorbed (Gy) and equivalent dose (Sv).
pub const AXES: usize = 14;

/// Powers of the base quantities.
pub type Dimension = [i8; AXES];

pub(super) const TEMPERATURE: usize = 4;
pub(super) const ANGLE: usize = 7;
/// From here on: tags, which the other side may leave out.
pub(super) const TAGS: usize = 10;

pub(super) const NONE: Dimension = [0; AXES];

/// Length, mass, time, current.
pub(super) const fn si(m: i8, kg: i8, s: i8, a: i8) -> Dimension {
    let mut d = NONE;
    (d[0], d[1], d[2], d[3]) = (m, kg, s, a);
    d
}

/// `d` times a power of one more quantity.
pub(super) const fn and(mut d: Dimension, axis: usize, power: i8) -> Dimension {
    d[axis] += power;
    d
}

pub(super) const LENGTH: Dimension = si(1, 0, 0, 0);
pub(super) const AREA: Dimension = si(2, 0, 0, 0);
pub(super) const VOLUME: Dimension = si(3, 0, 0, 0);
pub(super) const MASS: Dimension = si(0, 1, 0, 0);
pub(super) const TIME: Dimension = si(0, 0, 1, 0);
pub(super) const RATE: Dimension = si(0, 0, -1, 0);
pub(super) const SPEED: Dimension = si(1, 0, -1, 0);
pub(super) const ACCELERATION: Dimension = si(1, 0, -2, 0);
pub(super) const FORCE: Dimension = si(1, 1, -2, 0);
pub(super) const ENERGY: Dimension = si(2, 1, -2, 0);
pub(super) const POWER: Dimension = si(2, 1, -3, 0);
pub(super) const PRESSURE: Dimension = si(-1, 1, -2, 0);
pub(super) const CURRENT: Dimension = si(0, 0, 0, 1);
pub(super) const CHARGE: Dimension = si(0, 0, 1, 1);
pub(super) const VOLTAGE: Dimension = si(2, 1, -3, -1);
pub(super) const RESISTANCE: Dimension = si(2, 1, -3, -2);
pub(super) const CONDUCTANCE: Dimension = si(-2, -1, 3, 2);
pub(super) const CAPACITANCE: Dimension = si(-2, -1, 4, 2);
pub(super) const INDUCTANCE: Dimension = si(2, 1, -2, -2);
pub(super) const FLUX: Dimension = si(2, 1, -2, -1);
pub(super) const FIELD: Dimension = si(0, 1, -2, -1);
pub(super) const DOSE: Dimension = si(2, 0, -2, 0);
pub(super) const HEAT: Dimension = and(NONE, TEMPERATURE, 1);
pub(super) const AMOUNT: Dimension = and(NONE, 5, 1);
pub(super) const LIGHT: Dimension = and(NONE, 6, 1);
pub(super) const TURN: Dimension = and(NONE, ANGLE, 1);
pub(super) const SOLID: Dimension = and(NONE, ANGLE, 2);
pub(super) const BITS: Dimension = and(NONE, 8, 1);
pub(super) const LEVEL: Dimension = and(NONE, 9, 1);
pub(super) const CYCLES: Dimension = and(RATE, TAGS, 1);
pub(super) const DECAYS: Dimension = and(RATE, TAGS + 1, 1);
pub(super) const ABSORBED: Dimension = and(DOSE, TAGS + 2, 1);
pub(super) const EQUIVALENT: Dimension = and(DOSE, TAGS + 3, 1);
