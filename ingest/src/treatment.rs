//! What is done to every record on its way to the log, whichever source brings it.
//!
//! A [`Treatment`] is made once of the configuration and given to all sources; the appender, through which all of them
//! pass, applies it. In order: secrets are replaced ([`redact`](crate::redact)), the inventory puts the account's name
//! and labels on the event, and its [`tier`] is decided. Records that are [read again](Treatment::restoring) are marked as such. The
//! inventory may change while the service runs, so it is asked for anew for every object or request. Reading it from its
//! file is the business of the program.

use std::sync::Arc;

use event::inventory::Inventory;
use event::{Event, Flag};

use crate::dead_letter::DeadLetter;
use crate::decode::{Record, Wrapper};
use crate::normalize::{Context, Normalizer};
use crate::redact::Redactor;
use crate::tier;

/// Gives the inventory as it is now.
pub type Expected = Arc<dyn Fn() -> Arc<Inventory> + Send + Sync>;

/// What is done to every record.
pub struct Treatment {
    redactor: Redactor,
    expected: Expected,
    tiers: Vec<tier::Entry>,
    restores: bool,
}

impl std::fmt::Debug for Treatment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Treatment")
            .field("redactor", &self.redactor)
            .finish_non_exhaustive()
    }
}

impl Treatment {
    /// Replaces secrets with `redactor`, labels events from what `expected` gives, and decides their tier by `tiers`,
    /// which were checked.
    pub fn new(redactor: Redactor, expected: Expected, tiers: Vec<tier::Entry>) -> Treatment {
        Treatment {
            redactor,
            expected,
            tiers,
            restores: false,
        }
    }

    /// The same for records that were taken in before and are read again for the index alone: their events have the flag
    /// `restored`, and what is wrong in them is not written down again.
    pub fn restoring(self) -> Treatment {
        Treatment {
            restores: true,
            ..self
        }
    }

    /// Are records read again?
    pub fn restores(&self) -> bool {
        self.restores
    }

    /// Leaves every record as it is.
    pub fn off() -> Treatment {
        let nothing = Arc::new(Inventory::default());
        let expected = Arc::new(move || Arc::clone(&nothing));
        Treatment::new(Redactor::off(), expected, Vec::new())
    }

    /// The inventory as it is now.
    pub(crate) fn inventory(&self) -> Arc<Inventory> {
        (self.expected)()
    }

    /// The event of a record, without secrets, with the labels of `inventory` and its tier.
    pub(crate) fn event(
        &self,
        normalizer: &mut Normalizer,
        record: &Record<'_>,
        context: &Context,
        inventory: &Inventory,
    ) -> Event {
        let mut event = normalizer.redacted_event(record, context, &self.redactor);
        inventory.label(&mut event);
        let log_group = match &record.wrapper {
            Wrapper::LogEvent(log) => log.group,
            _ => "",
        };
        tier::decide(&self.tiers, &mut event, log_group);
        if self.restores {
            event.flags.set(Flag::Restored);
        }
        event
    }

    /// Replaces the secrets in a dead letter.
    pub(crate) fn letter(&self, letter: &mut DeadLetter) {
        self.redactor.letter(letter);
    }
}
