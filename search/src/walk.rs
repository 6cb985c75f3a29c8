//! All events that match, one after the other: what exports are made of.

use event::Event;
use tantivy::DocAddress;

use crate::request::{Kind, Request, SearchError};
use crate::searcher::{Searcher, load};

/// How many places are taken at once.
const PAGE: usize = 5_000;

impl Searcher {
    /// Hands all events that match to `each`, in the order asked for, however many there are: page by page, and event by
    /// event of a page, so that memory is bounded. The request's limit and cursor are not looked at; `most` bounds the
    /// number. Gives how many there were. Events that arrive meanwhile may be among them; none comes twice, and none that
    /// was there is left out.
    ///
    /// # Errors
    /// [`SearchError::Cut`] where a page takes longer than a search may: what was handed on is then not all.
    pub fn walk<E: From<SearchError>>(
        &self,
        request: &Request,
        most: Option<u64>,
        mut each: impl FnMut(Event) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut request = Request {
            limit: PAGE.min(self.max_limit()),
            kind: Kind::Events,
            after: None,
            count: false,
            ..request.clone()
        };
        let query = self.checked(&request)?;
        let mut count = 0;
        // What `now` means stays the same over all pages.
        let mut now = None;
        loop {
            let next = {
                let mut run = self.run(&request);
                let mut context = self.context(Kind::Events, &run.budget);
                context.now = *now.get_or_insert(context.now);
                run.narrow(&query, context.now);
                let (searchers, partial) = self
                    .find_events(&query, &context, &mut run)
                    .map_err(|e| self.error(e))?;
                if let Some(why) = partial {
                    return Err(SearchError::Cut(why).into());
                }
                let places: Vec<(usize, DocAddress)> = match request.newest_first {
                    true => run.page.values().rev().copied().collect(),
                    false => run.page.values().copied().collect(),
                };
                for (split, address) in places {
                    if most.is_some_and(|most| count >= most) {
                        return Ok(count);
                    }
                    let event = load(&searchers[split], address, &context.fields)
                        .map_err(|e| self.error(e))?;
                    if let Some(event) = event {
                        each(event)?;
                        count += 1;
                    }
                }
                run.next()
            };
            match next {
                Some(cursor) => request.after = Some(cursor),
                None => return Ok(count),
            }
        }
    }
}
