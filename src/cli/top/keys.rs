//! What keys do to what `postrider top` shows.
//!
//! Promises: every key does the same whatever is shown, but while a filter is typed. Must not: draw.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::cli::top::grid::{SortDirection, SortOrder};
use crate::cli::top::view::Tab;

/// What the keyboard is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Typing {
    /// Keys are commands.
    #[default]
    Commands,
    /// Keys are the filter's letters.
    Filter,
    /// Any key ends the help.
    Help,
}

/// Whether what is shown goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Flowing {
    #[default]
    Live,
    Held,
}

/// Whether it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterKey {
    Show,
    Quit,
}

/// How it is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Choices {
    pub(super) tab: Tab,
    /// Of each table.
    pub(super) orders: [Option<SortOrder>; Tab::ALL.len()],
    pub(super) filter: String,
    pub(super) typing: Typing,
    pub(super) flowing: Flowing,
    /// The first row that is shown.
    pub(super) first_row: usize,
}

/// Rows that a page has.
const PAGE_ROWS: usize = 20;

impl Choices {
    /// The order of the table that is shown.
    pub(super) fn order(&self) -> Option<SortOrder> {
        self.orders[self.place()]
    }

    fn place(&self) -> usize {
        Tab::ALL.iter().position(|tab| *tab == self.tab).expect("all are listed")
    }

    /// A key was pressed. `columns` has the table that is shown.
    pub(super) fn press(&mut self, key: KeyEvent, columns: usize) -> AfterKey {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return AfterKey::Quit;
        }
        match self.typing {
            Typing::Help => self.typing = Typing::Commands,
            Typing::Filter => self.letter(key.code),
            Typing::Commands => return self.command(key.code, columns),
        }
        AfterKey::Show
    }

    fn letter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = Typing::Commands,
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = Typing::Commands;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.first_row = 0;
    }

    fn command(&mut self, code: KeyCode, columns: usize) -> AfterKey {
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return AfterKey::Quit,
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Tab::ALL.len() - 1),
            KeyCode::Char('s') => self.sort_by_next(columns),
            KeyCode::Char('S') => {
                let place = self.place();
                if let Some(order) = &mut self.orders[place] {
                    order.direction = order.direction.turned();
                }
            }
            KeyCode::Char('p') => {
                self.flowing = match self.flowing {
                    Flowing::Live => Flowing::Held,
                    Flowing::Held => Flowing::Live,
                };
            }
            KeyCode::Char('/') => self.typing = Typing::Filter,
            KeyCode::Char('?') | KeyCode::F(1) => self.typing = Typing::Help,
            KeyCode::Down | KeyCode::Char('j') => self.first_row += 1,
            KeyCode::Up | KeyCode::Char('k') => self.first_row = self.first_row.saturating_sub(1),
            KeyCode::PageDown => self.first_row += PAGE_ROWS,
            KeyCode::PageUp => self.first_row = self.first_row.saturating_sub(PAGE_ROWS),
            KeyCode::Home => self.first_row = 0,
            _ => {}
        }
        AfterKey::Show
    }

    fn turn(&mut self, steps: usize) {
        self.tab = Tab::ALL[(self.place() + steps) % Tab::ALL.len()];
        self.first_row = 0;
    }

    /// By the first column, each further one, and then as it came.
    fn sort_by_next(&mut self, columns: usize) {
        let place = self.place();
        let column = self.orders[place].map_or(0, |order| order.column + 1);
        self.orders[place] =
            (column < columns).then_some(SortOrder { column, direction: SortDirection::Falling });
        self.first_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(choices: &mut Choices, codes: &[KeyCode]) -> AfterKey {
        codes.iter().fold(AfterKey::Show, |_, code| {
            choices.press(KeyEvent::new(*code, KeyModifiers::NONE), 3)
        })
    }

    #[test]
    fn tables_come_in_turn_and_keep_their_order() {
        let mut choices = Choices::default();
        press(&mut choices, &[KeyCode::Char('s'), KeyCode::Char('s'), KeyCode::Char('S')]);
        let wanted = SortOrder { column: 1, direction: SortDirection::Rising };
        assert_eq!(choices.order(), Some(wanted));
        press(&mut choices, &[KeyCode::Tab]);
        assert_eq!((choices.tab, choices.order()), (Tab::Buckets, None));
        press(&mut choices, &[KeyCode::BackTab, KeyCode::BackTab]);
        assert_eq!(choices.tab, Tab::Parked);
        press(&mut choices, &[KeyCode::Right]);
        assert_eq!((choices.tab, choices.order()), (Tab::Shards, Some(wanted)));
        press(&mut choices, &[KeyCode::Char('s'), KeyCode::Char('s')]);
        assert_eq!(choices.order(), None, "behind the last column it is as it came");
    }

    #[test]
    fn what_is_typed_into_the_filter_is_no_command() {
        let mut choices = Choices::default();
        let typed = ['/', 'q', 'p', '?'].map(KeyCode::Char);
        assert_eq!(press(&mut choices, &typed), AfterKey::Show);
        assert_eq!((choices.filter.as_str(), choices.flowing), ("qp?", Flowing::Live));
        press(&mut choices, &[KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!((choices.filter.as_str(), choices.typing), ("qp", Typing::Commands));
        press(&mut choices, &[KeyCode::Char('/'), KeyCode::Esc]);
        assert_eq!((choices.filter.as_str(), choices.typing), ("", Typing::Commands));
        assert_eq!(press(&mut choices, &[KeyCode::Char('q')]), AfterKey::Quit);
    }

    #[test]
    fn it_holds_still_and_goes_on() {
        let mut choices = Choices::default();
        press(&mut choices, &[KeyCode::Char('p'), KeyCode::Char('?'), KeyCode::Char('p')]);
        assert_eq!(choices.flowing, Flowing::Held, "the key that ends the help does nothing else");
        press(&mut choices, &[KeyCode::Char('p')]);
        assert_eq!(choices.flowing, Flowing::Live);
        press(&mut choices, &[KeyCode::Up, KeyCode::Down, KeyCode::PageDown]);
        assert_eq!(choices.first_row, 21);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(choices.press(interrupt, 3), AfterKey::Quit);
    }
}
