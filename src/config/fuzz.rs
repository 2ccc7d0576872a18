//! Fuzz body of a configuration file's text.

use std::path::Path;

use serde_json::Value;

use super::{Effective, print_json, print_text};

/// What is accepted is printed as a file that means the same, and as JSON; what is refused is
/// refused in words that name the file, each with a cure.
pub fn file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Effective::of_text(Path::new("beast.toml"), text) {
        Ok(effective) => {
            let printed = print_text(&effective);
            let again = Effective::of_text(Path::new("printed.toml"), &printed);
            let again = again.unwrap_or_else(|problems| panic!("{problems}\n{printed}"));
            assert_eq!(values(&again), values(&effective), "{printed}");
        }
        Err(problems) => {
            assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                assert!(!problem.what.is_empty() && !problem.cure.is_empty(), "{problem:?}");
            }
        }
    }
}

/// Every setting with its value, wherever it came from.
fn values(effective: &Effective) -> Vec<(String, String)> {
    let json: Value = serde_json::from_str(&print_json(effective)).expect("JSON is printed");
    let settings = json["settings"].as_array().expect("a list of settings");
    settings.iter().map(|setting| (setting["key"].to_string(), setting["value"].to_string())).collect()
}
