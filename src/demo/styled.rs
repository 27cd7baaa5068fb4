//! Lines with colours, whose width is known.
//!
//! Promises: a line is never wider than asked for, and control characters in it do nothing.
//! Must not: know what is drawn. Fails: when it is written to something closed.
//!
//! Widths are counted in characters; the wide ones of East Asian scripts count as two.

use std::io;

use crossterm::queue;
use crossterm::style::{Attribute, Color, Print, SetAttribute, SetForegroundColor};

/// How a piece of text looks. The sixteen colours of the terminal fit its background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Normal,
    Strong,
    Faint,
    /// What is written.
    In,
    /// What arrives.
    Out,
    Good,
    Bad,
    Warning,
}

impl Style {
    const fn look(self) -> (Option<Color>, Option<Attribute>) {
        match self {
            Self::Normal => (None, None),
            Self::Strong => (None, Some(Attribute::Bold)),
            Self::Faint => (Some(Color::DarkGrey), None),
            Self::In => (Some(Color::Cyan), None),
            Self::Out => (Some(Color::Green), None),
            Self::Good => (Some(Color::Green), Some(Attribute::Bold)),
            Self::Bad => (Some(Color::Red), Some(Attribute::Bold)),
            Self::Warning => (Some(Color::Yellow), None),
        }
    }
}

/// A line in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StyledLine {
    pieces: Vec<(Style, String)>,
}

impl StyledLine {
    /// Adds a piece.
    #[must_use]
    pub(super) fn and(mut self, style: Style, text: impl AsRef<str>) -> Self {
        let clean = text.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.pieces.push((style, clean));
        self
    }

    /// Adds a piece that ends at `column`, with blanks before it.
    #[must_use]
    pub(super) fn and_until(self, column: usize, style: Style, text: &str) -> Self {
        let blanks = column.saturating_sub(self.width() + width(text));
        self.and(Style::Normal, " ".repeat(blanks)).and(style, text)
    }

    /// Adds blanks up to `column`.
    #[must_use]
    pub(super) fn at(self, column: usize) -> Self {
        let blanks = column.saturating_sub(self.width());
        self.and(Style::Normal, " ".repeat(blanks))
    }

    /// The line, at most this wide.
    #[must_use]
    pub(super) fn cut(mut self, columns: usize) -> Self {
        let mut left = columns;
        for (_, text) in &mut self.pieces {
            *text = fit(text, left);
            left -= width(text);
        }
        self
    }

    /// How wide it is.
    pub(super) fn width(&self) -> usize {
        self.pieces.iter().map(|(_, text)| width(text)).sum()
    }

    /// Writes it, and ends with the terminal's own look.
    pub(super) fn write(&self, output: &mut impl io::Write) -> io::Result<()> {
        for (style, text) in &self.pieces {
            let (color, attribute) = style.look();
            if let Some(color) = color {
                queue!(output, SetForegroundColor(color))?;
            }
            if let Some(attribute) = attribute {
                queue!(output, SetAttribute(attribute))?;
            }
            queue!(output, Print(text))?;
            if color.is_some() || attribute.is_some() {
                queue!(output, SetAttribute(Attribute::Reset))?;
            }
        }
        Ok(())
    }

    /// Only the text.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        self.pieces.iter().map(|(_, text)| text.as_str()).collect()
    }
}

/// As much of the text as fits; what was cut shows as `…`.
pub(super) fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let mut fitting = String::new();
    for character in text.chars() {
        let needed = columns_of(character);
        if needed > left {
            break;
        }
        left -= needed;
        fitting.push(character);
    }
    if columns > 0 {
        fitting.push('…');
    }
    fitting
}

fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn columns_of(character: char) -> usize {
    match u32::from(character) {
        0x1100..=0x115F | 0x2E80..=0xA4CF | 0xAC00..=0xD7A3 | 0xF900..=0xFAFF => 2,
        0xFE30..=0xFE6F | 0xFF00..=0xFF60 | 0xFFE0..=0xFFE6 | 0x1F300..=0x1FAFF => 2,
        0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_lines_are_never_too_wide() {
        let line =
            StyledLine::default().and(Style::Good, "abc\u{1b}[2J").and(Style::Bad, "寿司寿司");
        assert_eq!(line.width(), 15);
        assert!(!line.text().contains('\u{1b}'));
        for columns in 0..20 {
            let cut = line.clone().cut(columns);
            assert!(cut.width() <= columns, "{columns}: {}", cut.text());
        }
    }

    #[test]
    fn pieces_stand_where_they_should() {
        let line =
            StyledLine::default().and(Style::Normal, "a").at(4).and_until(10, Style::In, "12");
        assert_eq!(line.text(), "a         12".replacen("  ", "", 1));
    }
}
