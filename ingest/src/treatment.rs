//! What is done to every record on its way to the log, whichever source brings it.
//!
//! A [`Treatment`] is made once of the configuration and given to all sources; the appender, through which all of them
//! pass, applies it. In order: secrets are replaced ([`redact`](crate::redact)) and the inventory puts the account's name
//! and labels on the event. The inventory may change while the service runs, so it is asked for anew for every object or
//! request. Reading it from its file is the business of the program.

use std::sync::Arc;

use event::Event;
use event::inventory::Inventory;

use crate::dead_letter::DeadLetter;
use crate::decode::Record;
use crate::normalize::{Context, Normalizer};
use crate::redact::Redactor;

/// Gives the inventory as it is now.
pub type Expected = Arc<dyn Fn() -> Arc<Inventory> + Send + Sync>;

/// What is done to every record.
pub struct Treatment {
    redactor: Redactor,
    expected: Expected,
}

impl std::fmt::Debug for Treatment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Treatment")
            .field("redactor", &self.redactor)
            .finish_non_exhaustive()
    }
}

impl Treatment {
    /// Replaces secrets with `redactor` and labels events from what `expected` gives.
    pub fn new(redactor: Redactor, expected: Expected) -> Treatment {
        Treatment { redactor, expected }
    }

    /// Leaves every record as it is.
    pub fn off() -> Treatment {
        let nothing = Arc::new(Inventory::default());
        Treatment::new(Redactor::off(), Arc::new(move || Arc::clone(&nothing)))
    }

    /// The inventory as it is now.
    pub(crate) fn inventory(&self) -> Arc<Inventory> {
        (self.expected)()
    }

    /// The event of a record, without secrets and with the labels of `inventory`.
    pub(crate) fn event(
        &self,
        normalizer: &mut Normalizer,
        record: &Record<'_>,
        context: &Context,
        inventory: &Inventory,
    ) -> Event {
        let mut event = normalizer.redacted_event(record, context, &self.redactor);
        inventory.label(&mut event);
        event
    }

    /// Replaces the secrets in a dead letter.
    pub(crate) fn letter(&self, letter: &mut DeadLetter) {
        self.redactor.letter(letter);
    }
}
