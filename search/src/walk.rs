//! All events that match, one after the other: what exports are made of.

use event::Event;

use crate::nodes::{Nodes, PAGE_BYTES};
use crate::request::{Kind, Request, SearchError};

/// How many events are taken at once.
const PAGE: usize = 5_000;

impl Nodes {
    /// Hands all events that match to `each`, in the order asked for, however many there are: page by page, so that memory
    /// is bounded. The request's limit and cursor are not looked at; `most` bounds the number. Gives how many there were.
    /// Events that arrive meanwhile may be among them; none comes twice, and none that was there is left out.
    ///
    /// # Errors
    /// [`SearchError::Cut`] where a page takes longer than a search may, or a node is missing: what was handed on is then
    /// not all.
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
        let mut count = 0;
        // What `now` means stays the same over all pages.
        let now = self.now();
        loop {
            let answer = self.page(&request, now, PAGE_BYTES)?;
            if let Some(why) = answer.partial {
                return Err(SearchError::Cut(why).into());
            }
            for event in answer.hits {
                if most.is_some_and(|most| count >= most) {
                    return Ok(count);
                }
                each(event)?;
                count += 1;
            }
            match answer.next {
                Some(cursor) => request.after = Some(cursor),
                None => return Ok(count),
            }
        }
    }
}
