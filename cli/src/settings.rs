//! The library's settings, read from its own table in `src/config.rs`, whose text is in
//! the command: so there is one list of them.

/// A setting of the library.
pub struct Setting {
    /// Its name behind `OBMALLOC_`.
    pub name: &'static str,
    /// What values it takes, and the default.
    pub values: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// All settings, in the order of the table.
pub fn all() -> Vec<Setting> {
    const TABLE: &str = include_str!("../../src/config.rs");
    // Each field of the table stands on a line of its own: `name: "VERBOSE",`.
    let field = |line: &'static str, name: &str| {
        let text = line.trim().strip_prefix(name)?.strip_prefix(": \"")?;
        text.strip_suffix("\",")
    };
    let mut settings: Vec<Setting> = Vec::new();
    for line in TABLE.lines() {
        if let Some(name) = field(line, "name") {
            settings.push(Setting {
                name,
                values: "",
                meaning: "",
            });
        } else if let Some(last) = settings.last_mut() {
            if let Some(values) = field(line, "values") {
                last.values = values;
            } else if let Some(meaning) = field(line, "meaning") {
                last.meaning = meaning;
            }
        }
    }
    settings
}

/// The setting of this name, with or without `OBMALLOC_`, in any case.
pub fn named(name: &str) -> Option<Setting> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("OBMALLOC_").unwrap_or(&name);
    all().into_iter().find(|setting| setting.name == name)
}

/// A list of them for a help text.
pub fn help() -> String {
    let mut text = String::from("Settings (for --set):\n");
    for Setting {
        name,
        values,
        meaning,
    } in all()
    {
        text += &format!("  OBMALLOC_{name}\n      {values}\n      {meaning}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        let settings = all();
        let entries = include_str!("../../src/config.rs")
            .matches("    Setting {\n")
            .count();
        assert_eq!(settings.len(), entries);
        assert!(entries > 10);
        for Setting {
            name,
            values,
            meaning,
        } in &settings
        {
            assert!(!values.is_empty() && !meaning.is_empty(), "{name}");
        }
    }

    #[test]
    fn names_are_found_in_each_spelling() {
        for name in ["VERBOSE", "verbose", "OBMALLOC_VERBOSE", "obmalloc_verbose"] {
            assert_eq!(named(name).unwrap().name, "VERBOSE");
        }
        assert!(named("OBMALLOC_").is_none());
        assert!(named("VERBOS").is_none());
    }
}
