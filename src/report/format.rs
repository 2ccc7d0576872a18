//! The forms a report is given in, and how a client says which.

use serde_json::{Map, Value};

use super::table::{Cell, Column, Kind, Table, instant_text};

/// A form of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One object: what was asked for, the rows as objects, and the cursor.
    Json,
    /// RFC 4180, with a head.
    Csv,
    /// Tab-separated, with a head; tabs, line ends and backslashes in texts are escaped.
    Tsv,
    /// Columns aligned by spaces, for people.
    Text,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Json, Self::Csv, Self::Tsv, Self::Text];

    /// Its name in `format=`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Text => "text",
        }
    }

    /// The form of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Its media type, as the answer names it.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Tsv => "text/tab-separated-values; charset=utf-8",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    /// The form that an `Accept` field asks for: of those we have the one of highest quality, the
    /// first listed of several. JSON where everything will do; `None` when nothing we have will.
    #[must_use]
    pub fn accepted(accept: &str) -> Option<Self> {
        let mut best: Option<(Self, u16)> = None;
        for item in accept.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default().to_ascii_lowercase();
            let format = match range.as_str() {
                "application/json" | "application/*" | "*/*" => Self::Json,
                "text/csv" => Self::Csv,
                "text/tab-separated-values" => Self::Tsv,
                "text/plain" | "text/*" => Self::Text,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            let quality = quality.map_or(Some(1_000), quality_thousandths).unwrap_or(0);
            if quality > 0 && best.is_none_or(|(_, highest)| quality > highest) {
                best = Some((format, quality));
            }
        }
        best.map(|(format, _)| format)
    }
}

/// `1`, `0.5`, `0.123` in thousandths.
fn quality_thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match whole {
        "1" => fraction.bytes().all(|b| b == b'0').then_some(1_000),
        "0" => format!("{fraction:0<3}").parse().ok(),
        _ => None,
    }
}

/// The table in JSON, as the members that `head` begins with and then `rows` and `next`.
#[must_use]
pub(super) fn json(head: Map<String, Value>, table: &Table, next: Option<&str>) -> String {
    let rows = table.rows.iter().map(|row| {
        let members = table.columns.iter().zip(row);
        Value::Object(
            members.map(|(column, cell)| (column.name.to_owned(), json_cell(*column, cell))).collect(),
        )
    });
    let mut all = head;
    all.insert("rows".to_owned(), rows.collect());
    all.insert("next".to_owned(), next.map_or(Value::Null, Value::from));
    let mut text = Value::Object(all).to_string();
    text.push('\n');
    text
}

fn json_cell(column: Column, cell: &Cell) -> Value {
    match cell {
        Cell::Nothing => Value::Null,
        Cell::Number(number) => (*number).into(),
        Cell::Signed(number) => (*number).into(),
        Cell::Text(text) => text.as_str().into(),
        Cell::Time(at) => instant_text(*at, column.kind).into(),
    }
}

/// The table in one of the other forms.
#[must_use]
pub(super) fn lines(format: Format, table: &Table) -> String {
    match format {
        Format::Tsv => separated(table, "\t", "\n", escaped),
        Format::Text => aligned(table),
        Format::Csv | Format::Json => separated(table, ",", "\r\n", quoted),
    }
}

/// The head of a CSV file, for those who write one row after the other.
#[must_use]
pub(super) fn csv_head(columns: &[Column]) -> String {
    columns.iter().map(|column| column.name).collect::<Vec<_>>().join(",") + "\r\n"
}

/// One row of a CSV file, with its line end.
#[must_use]
pub(super) fn csv_row(columns: &[Column], row: &[Cell]) -> String {
    let cells: Vec<String> =
        columns.iter().zip(row).map(|(column, cell)| written(*column, cell, quoted)).collect();
    cells.join(",") + "\r\n"
}

fn separated(table: &Table, separator: &str, end: &str, text: fn(&str) -> String) -> String {
    let head: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    let mut all = head.join(separator) + end;
    for row in &table.rows {
        let cells: Vec<String> =
            table.columns.iter().zip(row).map(|(column, cell)| written(*column, cell, text)).collect();
        all.push_str(&cells.join(separator));
        all.push_str(end);
    }
    all
}

/// A cell, its text made fit for the form by `text`.
fn written(column: Column, cell: &Cell, text: fn(&str) -> String) -> String {
    match cell {
        Cell::Nothing => String::new(),
        Cell::Number(number) => number.to_string(),
        Cell::Signed(number) => number.to_string(),
        Cell::Text(found) => text(found),
        Cell::Time(at) => instant_text(*at, column.kind),
    }
}

/// A text that a spreadsheet would take for a formula gets an apostrophe before it, as spreadsheets
/// themselves write such a text: what clients send as ids must not run on the reader's machine.
fn disarmed(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

fn quoted(text: &str) -> String {
    let text = disarmed(text);
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn escaped(text: &str) -> String {
    let text = disarmed(text);
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

/// Control characters would garble a terminal, or command it.
fn printable(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn aligned(table: &Table) -> String {
    let head: Vec<String> = table.columns.iter().map(|column| column.name.to_uppercase()).collect();
    let mut lines = vec![head];
    for row in &table.rows {
        let cell = |(column, cell): (&Column, &Cell)| match cell {
            Cell::Nothing => "-".to_owned(),
            _ => written(*column, cell, printable),
        };
        lines.push(table.columns.iter().zip(row).map(cell).collect());
    }
    let mut widths = vec![0; table.columns.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut shown = String::new();
        for ((cell, width), column) in line.iter().zip(&widths).zip(&table.columns) {
            if !shown.is_empty() {
                shown.push_str("  ");
            }
            shown.push_str(&match column.kind {
                Kind::Number | Kind::Signed => format!("{cell:>width$}"),
                Kind::Text | Kind::Second | Kind::Instant => format!("{cell:width$}"),
            });
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::table::column;
    use super::*;
    use crate::time::UnixNs;

    fn table() -> Table {
        let columns = [
            column("time", Kind::Second),
            column("asset", Kind::Text),
            column("requests", Kind::Number),
            column("difference", Kind::Signed),
        ];
        let row = |asset: &str, requests, difference| {
            vec![Cell::Time(UnixNs(1_709_210_096_123_456_789)), asset.into(), requests, difference]
        };
        Table {
            columns: columns.to_vec(),
            rows: vec![
                row("BTC", Cell::Number(7), Cell::Signed(-2)),
                row("=1+\"2\",\t\\\n", Cell::Nothing, Cell::Nothing),
            ],
        }
    }

    #[test]
    fn json_names_every_cell_and_the_cursor() {
        let text = json(Map::new(), &table(), Some("abc"));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["rows"][0]["time"], "2024-02-29T12:34:56Z");
        assert_eq!(value["rows"][0]["requests"], 7);
        assert_eq!(value["rows"][0]["difference"], -2);
        assert_eq!(value["rows"][1]["asset"], "=1+\"2\",\t\\\n");
        assert_eq!(value["rows"][1]["requests"], Value::Null);
        assert_eq!(value["next"], "abc");
    }

    #[test]
    fn csv_quotes_and_disarms() {
        let text = lines(Format::Csv, &table());
        let expected = "time,asset,requests,difference\r\n2024-02-29T12:34:56Z,BTC,7,-2\r\n\
                        2024-02-29T12:34:56Z,\"'=1+\"\"2\"\",\t\\\n\",,\r\n";
        assert_eq!(text, expected);
        let table = table();
        let rows: String = table.rows.iter().map(|row| csv_row(&table.columns, row)).collect();
        assert_eq!(csv_head(&table.columns) + &rows, expected);
        for formula in ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1"] {
            assert!(quoted(formula).trim_start_matches('"').starts_with('\''), "{formula:?}");
        }
        assert_eq!(quoted("7-1"), "7-1");
    }

    #[test]
    fn tsv_keeps_a_row_on_its_line() {
        let text = lines(Format::Tsv, &table());
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("2024-02-29T12:34:56Z\t'=1+\"2\",\\t\\\\\\n\t\t\n"), "{text}");
    }

    #[test]
    fn text_is_aligned_and_cannot_command_a_terminal() {
        let text = lines(Format::Text, &table());
        assert_eq!(
            text,
            "TIME                  ASSET       REQUESTS  DIFFERENCE\n\
             2024-02-29T12:34:56Z  BTC                7          -2\n\
             2024-02-29T12:34:56Z  =1+\"2\",\u{fffd}\\\u{fffd}         -           -\n"
        );
        assert_eq!(printable("\u{1b}[2J\u{9b}"), "\u{fffd}[2J\u{fffd}");
    }

    #[test]
    fn the_best_accepted_form_is_taken() {
        for (accept, format) in [
            ("*/*", Some(Format::Json)),
            ("text/csv", Some(Format::Csv)),
            ("text/html, application/xhtml+xml, */*;q=0.8", Some(Format::Json)),
            ("text/csv;q=0.5, text/plain", Some(Format::Text)),
            ("text/csv;q=0.5, text/tab-separated-values;q=0.75", Some(Format::Tsv)),
            ("TEXT/CSV ; Q=1.000", Some(Format::Csv)),
            ("text/csv;q=0", None),
            ("text/csv;q=2, image/png", None),
            ("", None),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
        for format in Format::ALL {
            assert_eq!(Format::named(format.name()), Some(format));
            assert_eq!(Format::accepted(format.media_type()), Some(format));
        }
        assert_eq!(Format::named("xml"), None);
    }
}
