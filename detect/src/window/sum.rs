//! A sum of floating-point numbers that is exact.
//!
//! Floats that are added and taken away again as a window slides leave their rounding errors behind, and the sum
//! depends on the order. A [`Sum`] keeps every bit instead: it is one very wide fixed-point number, cut into digits
//! of 32 bits, from the least that a float can hold to the greatest times many. So it depends on nothing but which
//! numbers are in it, and is rounded once, when it is read.

/// Bit 0 of digit 0 is worth this power of two: the least that a float can hold.
const LEAST: i32 = -1074;

/// From 2^-1074 to 2^1024 and a million million times that.
const DIGITS: usize = 68;

/// After so many changes carries are handed on, long before a digit of 32 bits overflows its 63.
const PATIENCE: u32 = 1 << 28;

/// The exact sum of finite numbers.
#[derive(Debug, Clone)]
pub(super) struct Sum {
    digits: [i64; DIGITS],
    changes: u32,
}

impl Sum {
    /// Nothing.
    pub(super) fn new() -> Sum {
        Sum {
            digits: [0; DIGITS],
            changes: 0,
        }
    }

    /// Takes a finite number in.
    pub(super) fn add(&mut self, number: f64) {
        self.change(number, 1);
    }

    /// Takes one out that was taken in before.
    pub(super) fn remove(&mut self, number: f64) {
        self.change(number, -1);
    }

    fn change(&mut self, number: f64, times: i64) {
        let bits = number.to_bits();
        let exponent = (bits >> 52 & 0x7ff) as usize;
        let fraction = bits & ((1 << 52) - 1);
        // A subnormal number has the exponent of the least normal one, and no hidden bit.
        let (mantissa, shift) = match exponent {
            0 => (fraction, 0),
            _ => (fraction | 1 << 52, exponent - 1),
        };
        let sign = if bits >> 63 == 1 { -times } else { times };
        let mut rest = u128::from(mantissa) << (shift % 32);
        let mut place = shift / 32;
        while rest != 0 {
            self.digits[place] += sign * (rest as u32) as i64;
            rest >>= 32;
            place += 1;
        }
        self.changes += 1;
        if self.changes >= PATIENCE {
            normalize(&mut self.digits);
            self.changes = 0;
        }
    }

    /// The float nearest to the sum.
    pub(super) fn value(&self) -> f64 {
        let mut digits = self.digits;
        normalize(&mut digits);
        let negative = digits[DIGITS - 1] < 0;
        if negative {
            digits.iter_mut().for_each(|d| *d = -*d);
            normalize(&mut digits);
        }
        let Some(top) = digits.iter().rposition(|d| *d != 0) else {
            return 0.0;
        };
        // The upper 128 bits hold more than a float can; of what is below only whether it is nothing matters.
        let low = top.saturating_sub(3);
        let upper = digits[low..=top].iter().rev();
        let upper = upper.fold(0_u128, |value, digit| value << 32 | *digit as u128);
        let below = digits[..low].iter().any(|d| *d != 0);
        let value = (upper | u128::from(below)) as f64;
        let power = LEAST + 32 * low as i32;
        // In two steps: neither power may be out of range where their product is not.
        let value = value * 2_f64.powi(power / 2) * 2_f64.powi(power - power / 2);
        if negative { -value } else { value }
    }
}

/// Hands carries on, so that every digit but the last lies in 0..2^32.
fn normalize(digits: &mut [i64; DIGITS]) {
    let mut carry = 0;
    for digit in &mut digits[..DIGITS - 1] {
        let value = *digit + carry;
        *digit = value & 0xffff_ffff;
        carry = value >> 32;
    }
    digits[DIGITS - 1] += carry;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(numbers: &[f64], expected: f64) {
        let mut sum = Sum::new();
        numbers.iter().for_each(|n| sum.add(*n));
        assert_eq!(sum.value(), expected, "{numbers:?}");
        let mut back = Sum::new();
        numbers.iter().rev().for_each(|n| back.add(*n));
        assert_eq!(back.value(), expected);
        numbers.iter().for_each(|n| sum.remove(*n));
        assert_eq!(sum.value(), 0.0);
    }

    #[test]
    fn nothing_is_lost() {
        check(&[], 0.0);
        check(&[0.1, 0.2], 0.3_f64.next_up());
        check(&[1e300, 1.0, -1e300], 1.0);
        check(&[1e16, 1.0, 1.0, -1e16], 2.0);
        check(&[f64::MAX, f64::MAX, -f64::MAX], f64::MAX);
        check(&[f64::MIN_POSITIVE, -5e-324], f64::MIN_POSITIVE.next_down());
        check(&[5e-324, 5e-324], 1e-323);
        check(&[-3.5, 1.25], -2.25);
        check(&[1.0, 2_f64.powi(-53)], 1.0);
        check(&[1.0, 2_f64.powi(-53), 5e-324], 1.0_f64.next_up());
        check(&[-1.0, -2_f64.powi(-53), -5e-324], (-1.0_f64).next_down());
        check(&[f64::MAX, f64::MAX], f64::INFINITY);
    }

    proptest::proptest! {
        /// Whole numbers within 2^53 add exactly in any order, so the plain sum is right.
        #[test]
        fn whole_numbers_add_up(numbers in proptest::collection::vec(-1_000_000_i64..1_000_000, 0..40)) {
            let plain: i64 = numbers.iter().sum();
            let mut sum = Sum::new();
            numbers.iter().for_each(|n| sum.add(*n as f64));
            proptest::prop_assert_eq!(sum.value(), plain as f64);
        }

        /// One number comes back as it was, and taking away all but one leaves that one.
        #[test]
        fn every_number_comes_back(bits in proptest::collection::vec(proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO, 1..20)) {
            let mut sum = Sum::new();
            bits.iter().for_each(|n| sum.add(*n));
            bits[1..].iter().for_each(|n| sum.remove(*n));
            proptest::prop_assert_eq!(sum.value(), bits[0]);
        }
    }
}
