//! Any text as a time: it is refused, or is written so that it reads back as the same time.

#![no_main]

use event::Time;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(time) = Time::parse(text) {
        let written = time.to_string();
        assert_eq!(Time::parse(&written), Ok(time), "{text} became {written}");
    }
    if let Ok(number) = text.trim().parse::<f64>()
        && let Some(time) = Time::from_epoch(number)
    {
        let written = time.to_string();
        assert_eq!(Time::parse(&written), Ok(time), "{number} became {written}");
    }
});
