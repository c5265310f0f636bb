//! The page itself: template, style and script of `page/`, the data, and the sheets of pictures.
//!
//! What comes from the data is escaped: by the template, and in the script's data by writing `<`, `>` and `&` as JSON
//! escapes, so that no text can end the element that holds it. The script puts text into the page as text.

use minijinja::{AutoEscape, Environment, context};
use tldr_loader::{Error, Result};

use crate::model::Model;

const TEMPLATE: &str = include_str!("../page/report.html");
const STYLE: &str = include_str!("../page/report.css");
/// The script in parts, each of which is read by itself.
const SCRIPT: [&str; 5] = [
    include_str!("../page/basics.js"),
    include_str!("../page/charts.js"),
    include_str!("../page/tiles.js"),
    include_str!("../page/sections.js"),
    include_str!("../page/filter.js"),
];

/// The page.
///
/// # Errors
/// A template that does not fit the data.
pub(crate) fn page(model: &Model, sheets: &[String]) -> Result<String> {
    let cannot =
        |error: minijinja::Error| Error::io("make the page", std::io::Error::other(format!("{error:#}")));
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("thousands", thousands);
    environment.add_filter("percent", |part: u64, of: u64| percent(part, of));
    // All digits of the f32 that the gate compares with: fewer would be another cut.
    environment.add_filter("exactly", |value: f64| (value as f32).to_string());
    environment.add_template("report.html", TEMPLATE).map_err(cannot)?;
    let data = String::from_utf8(json(model)?).unwrap_or_default();
    let page = environment.get_template("report.html").map_err(cannot)?;
    page.render(context! {
        model => model,
        style => STYLE,
        script => SCRIPT.concat(),
        data => inert(&data),
        sheets => sheets,
    })
    .map_err(cannot)
}

/// The data as JSON.
///
/// # Errors
/// None that is known of.
pub(crate) fn json(model: &Model) -> Result<Vec<u8>> {
    serde_json::to_vec(model).map_err(|error| Error::io("write JSON", std::io::Error::other(error)))
}

/// JSON that can stand in a script element.
fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out += "\\u003c",
            '>' => out += "\\u003e",
            '&' => out += "\\u0026",
            '\u{2028}' => out += "\\u2028",
            '\u{2029}' => out += "\\u2029",
            _ => out.push(c),
        }
    }
    out
}

/// A number with commas: 1,234,567.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share of which no part reads as none, and only all of it as all.
fn percent(part: u64, of: u64) -> String {
    match format!("{:.1}", 100.0 * part as f64 / of.max(1) as f64) {
        text if text == "100.0" && part < of => ">99.9%".into(),
        text if text == "0.0" && part > 0 => "<0.1%".into(),
        text => text + "%",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_small_and_asks_for_nothing() {
        let script = SCRIPT.concat();
        assert!(script.len() < 60_000, "{}", script.len());
        for word in [
            "fetch(",
            "XMLHttpRequest",
            "WebSocket",
            "sendBeacon",
            "innerHTML",
            "eval(",
            "import(",
            "</script",
        ] {
            assert!(!script.contains(word), "{word}");
        }
        assert!(!STYLE.contains("url(") && !TEMPLATE.contains("http:") && !TEMPLATE.contains("https:"));
    }

    #[test]
    fn no_text_ends_the_script() {
        let text = inert(r#"{"a":"</script><script>alert(1)</script>&\u2028"}"#);
        assert!(!text.contains('<') && !text.contains('&'));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text)
                .ok()
                .map(|v| v["a"].to_string().contains("</script>")),
            Some(true)
        );
        assert_eq!(
            (thousands(1_234_567), thousands(12), percent(1, 8)),
            ("1,234,567".into(), "12".into(), "12.5%".into())
        );
        let shares = [(0, 9), (1, 9999), (9999, 10_000), (9, 9)].map(|(part, of)| percent(part, of));
        assert_eq!(shares, ["0.0%", "<0.1%", ">99.9%", "100.0%"]);
    }
}
