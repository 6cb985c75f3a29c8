//! Charts as inline SVG, drawn on the server.
//!
//! The histogram over time of a search: bars that are links narrowing the range to their time. Only
//! presentation attributes and classes are used, since the Content-Security-Policy forbids inline styles.

use event::Time;
use maud::{Markup, html};
use search::Bucket;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 84.0;

/// Counts over time; `link` gives the address of one bar's range, `brush` that of a range that is drawn over the bars,
/// with `FROM` and `TO` for its ends.
pub(crate) fn histogram(
    buckets: &[Bucket],
    link: impl Fn(Time, Time) -> String,
    brush: &str,
) -> Markup {
    let most = buckets.iter().map(|b| b.count).max().unwrap_or(0);
    let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else {
        return html! {};
    };
    let step = WIDTH / buckets.len() as f64;
    html! {
        figure.histogram data-from=(first.from) data-to=(last.to) data-brush=(brush) {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img"
                aria-label=(format!("events over time, at most {most} a bar")) {
                @for (i, bucket) in buckets.iter().enumerate() {
                    @let share = if most == 0 { 0.0 } else { bucket.count as f64 / most as f64 };
                    // A bar that is not empty is always seen.
                    @let height = if bucket.count == 0 { 0.0 } else { (share * (HEIGHT - 4.0)).max(3.0) };
                    a href=(link(bucket.from, bucket.to)) tabindex="-1" {
                        rect.back x=(format!("{:.1}", i as f64 * step)) y="0" width=(format!("{step:.1}")) height=(HEIGHT) {
                            title { (format!("{} to {}: {}", bucket.from, bucket.to, bucket.count)) }
                        }
                        rect.bar x=(format!("{:.1}", i as f64 * step + step * 0.08)) y=(format!("{:.1}", HEIGHT - height))
                            width=(format!("{:.1}", step * 0.84)) height=(format!("{height:.1}")) {
                            title { (format!("{} to {}: {}", bucket.from, bucket.to, bucket.count)) }
                        }
                    }
                }
            }
            figcaption {
                span { (short(first.from)) }
                span.peak { "peak " (most) " a bar" }
                span { (short(last.to)) }
            }
        }
    }
}

/// A time without its fraction, in UTC.
pub(crate) fn short(time: Time) -> String {
    let text = time.to_string();
    format!("{} {}", &text[..10], &text[11..19])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_is_seen_and_links_to_its_range() {
        let bucket = |from, count| Bucket {
            from: Time(from),
            to: Time(from + 10),
            count,
        };
        let drawn = histogram(
            &[bucket(0, 1), bucket(10, 1_000_000), bucket(20, 0)],
            |f, t| format!("/search?from={}&to={}", f.0, t.0),
            "/search?from=FROM&to=TO",
        )
        .into_string();
        assert!(drawn.contains("height=\"3.0\""), "{drawn}");
        assert!(drawn.contains("/search?from=10&amp;to=20"), "{drawn}");
        assert!(!drawn.contains("style="));
    }
}
