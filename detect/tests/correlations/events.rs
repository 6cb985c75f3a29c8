//! Random events that satisfy random rules.

use std::collections::BTreeMap;

use event::{Event, Id, Time};

use crate::SECOND;
use crate::documents::Dice;

/// An event as the test knows it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) number: u32,
    pub(crate) time: i64,
    /// Which of the single-event rules it satisfies.
    pub(crate) rules: [bool; 3],
    pub(crate) fields: BTreeMap<&'static str, Vec<String>>,
}

impl Seen {
    pub(crate) fn random(dice: &mut Dice, number: u32, spread: u64, simple: bool) -> Seen {
        let mut fields = BTreeMap::new();
        let mut one = |name, text: Option<String>| {
            fields.insert(name, text.into_iter().collect::<Vec<String>>());
        };
        let often = |dice: &mut Dice, letter: &str, of: u64| {
            (dice.roll(8) > 0).then(|| format!("{letter}{}", dice.roll(of)))
        };
        one("user", often(dice, "u", 2));
        one("ip", often(dice, "i", 3));
        one("v", often(dice, "v", 4));
        one(
            "n",
            match dice.roll(6) {
                0 => None,
                1 => Some("many".into()),
                2 => Some(format!("{}.5", dice.roll(9))),
                3 => Some(format!("-{}", 1 + dice.roll(4))),
                _ => Some(dice.roll(12).to_string()),
            },
        );
        if !simple && dice.roll(5) == 0 {
            fields.insert(
                "v",
                vec!["v1".into(), format!("v{}", dice.roll(5)), "v7".into()],
            );
            fields.insert("n", vec!["3".into(), "1".into()]);
        }
        let mut rules = [dice.roll(2) == 0, dice.roll(3) == 0, dice.roll(3) == 0];
        rules[dice.roll(3) as usize] = true;
        Seen {
            number,
            time: dice.roll(spread) as i64,
            rules,
            fields,
        }
    }

    pub(crate) fn shown(&self) -> String {
        format!("event-{}", self.number)
    }

    pub(crate) fn id(&self) -> Id {
        Id::of("test", &[&self.number.to_le_bytes()])
    }

    pub(crate) fn json(&self) -> String {
        let mut map = serde_json::Map::new();
        for (n, satisfied) in self.rules.iter().enumerate() {
            map.insert(format!("k{n}"), u8::from(*satisfied).into());
        }
        for (name, values) in &self.fields {
            // Numbers as numbers, but some as texts.
            let value = |text: &String| match text.parse::<f64>() {
                Ok(number) if !self.number.is_multiple_of(3) => {
                    serde_json::from_str(text).unwrap_or_else(|_| number.into())
                }
                _ => serde_json::Value::from(text.clone()),
            };
            match values.as_slice() {
                [] => {}
                [one] => drop(map.insert((*name).into(), value(one))),
                many => {
                    let many = many.iter().map(value).collect::<Vec<_>>();
                    map.insert((*name).into(), many.into());
                }
            }
        }
        serde_json::Value::Object(map).to_string()
    }

    pub(crate) fn event(&self) -> Event {
        Event {
            id: self.id(),
            source: "unknown".into(),
            source_id: self.shown().into(),
            time: Time(self.time * SECOND),
            actor: format!("actor-{}", self.number % 3).into(),
            raw: self.json().into_bytes().into(),
            ..Event::default()
        }
    }
}
