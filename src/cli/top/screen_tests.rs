use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::cli::top::grid::SortOrder;
use crate::cli::top::view::InstanceView;
use crate::metrics::describe::{instance_status, parked_status, tier_status};
use crate::metrics::sample::{LARGE, monitor};

/// A bad day: 64 buckets, 5 instances, 10,000 parked events; and an instance that gives no answer.
fn bad_day() -> TopView {
    let monitor = monitor(LARGE);
    let view = |authority: &str, report| InstanceView { authority: authority.to_owned(), report };
    TopView {
        instances: vec![
            view("a:1", Ok(instance_status(&monitor))),
            view("b:1", Err("connection refused\u{1b}[2J".to_owned())),
        ],
        tier: tier_status(&monitor),
        parked: parked_status(&monitor, 500),
        trouble: None,
    }
}

fn picture(view: &TopView, choices: &mut Choices, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is in memory");
    terminal.draw(|frame| draw(frame, Some(view), choices)).expect("it is in memory");
    let buffer = terminal.backend().buffer();
    let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_owned()).collect()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn press(choices: &mut Choices, code: KeyCode, columns: usize) {
    choices.press(KeyEvent::new(code, KeyModifiers::NONE), columns);
}

#[test]
fn the_head_tells_how_each_instance_and_the_tier_do() {
    let lines = picture(&bad_day(), &mut Choices::default(), 160, 30);
    assert!(lines[0].starts_with("relay-0:7:abc120: publishing 98,204/s, "), "{lines:#?}");
    assert!(lines[1].contains("out 98,204/s  age p50 0.038 s"), "{lines:#?}");
    assert_eq!(
        lines[2], "b:1 gives no answer: connection refused\\u{1b}[2J",
        "nothing moves the terminal"
    );
    assert!(lines[3].starts_with("tier: 13 of 64 buckets have no living owner"), "{lines:#?}");
    assert_eq!(lines[4], " shards  buckets  instances  parked");
    assert!(lines[5].starts_with("INSTANCE"), "{lines:#?}");
    assert_eq!(words(&lines[6])[..4], ["relay-0:7:abc120", "0", "idle", "49,102"], "{lines:#?}");
    assert!(lines[29].ends_with("? help  q quit"), "{lines:#?}");
}

#[test]
fn buckets_are_sorted_filtered_and_moved_through() {
    let (view, mut choices) = (bad_day(), Choices { tab: Tab::Buckets, ..Choices::default() });
    let columns = view.grid(Tab::Buckets).heads.len();
    let first = |choices: &mut Choices| {
        let lines = picture(&view, choices, 160, 30);
        let bucket = words(&lines[6]).first().expect("there is a row").to_string();
        (bucket, lines)
    };
    assert_eq!(first(&mut choices).0, "0");
    press(&mut choices, KeyCode::Char('s'), columns);
    let (bucket, lines) = first(&mut choices);
    assert_eq!(bucket, "63");
    assert!(lines[5].trim_start().starts_with("BUCKET\u{2193}"), "{lines:#?}");
    for _ in 0..1_000 {
        press(&mut choices, KeyCode::Down, columns);
    }
    let (_, lines) = first(&mut choices);
    assert_eq!(words(&lines[28])[0], "0", "the last row is the last: {lines:#?}");
    for letter in "/orphaned abc124".chars() {
        press(&mut choices, KeyCode::Char(letter), columns);
    }
    let (bucket, lines) = first(&mut choices);
    assert_eq!(bucket, "59");
    assert!(lines[29].contains("/orphaned abc124 (12 rows)"), "{lines:#?}");
}

#[test]
fn what_is_parked_is_shown_with_what_helps() {
    let mut choices = Choices { tab: Tab::Parked, ..Choices::default() };
    let lines = picture(&bad_day(), &mut choices, 200, 30);
    assert_eq!(words(&lines[6])[..4], ["too-large", "order/4711", "2", "90"], "{lines:#?}");
    assert!(lines[6].contains("raise the topic's max.message.bytes"), "{lines:#?}");
    choices.tab = Tab::Instances;
    let lines = picture(&bad_day(), &mut choices, 160, 30);
    assert!(lines[6].contains("alive") && lines[6].contains("98,204"), "{lines:#?}");
    assert!(lines[10].contains("dead") && lines[10].contains("over for 3.5 s"), "{lines:#?}");
}

#[test]
fn a_small_terminal_and_nothing_to_show_are_no_trouble() {
    for (width, height) in [(1, 1), (10, 3), (40, 8)] {
        let mut choices = Choices::default();
        picture(&bad_day(), &mut choices, width, height);
        picture(&TopView::default(), &mut choices, width, height);
    }
    let mut choices = Choices::default();
    let lines = picture(&TopView::default(), &mut choices, 80, 10);
    assert!(lines.iter().any(|line| line.contains("give an instance's URL")), "{lines:#?}");
    let silent = InstanceView { authority: "b:1".to_owned(), report: Err("none".to_owned()) };
    let view = TopView { instances: vec![silent], ..TopView::default() };
    for (tab, said) in [(Tab::Shards, "no instance answers"), (Tab::Parked, "was not seen yet")] {
        let lines = picture(&view, &mut Choices { tab, ..Choices::default() }, 80, 10);
        assert!(lines.iter().any(|line| line.contains(said)), "{said}: {lines:#?}");
    }
    choices.typing = Typing::Help;
    let lines = picture(&bad_day(), &mut choices, 80, 20);
    assert!(lines.iter().any(|line| line.contains("hold still, and go on")), "{lines:#?}");
    let order = SortOrder { column: 99, direction: SortDirection::Rising };
    let _shown = bad_day().grid(Tab::Shards).arranged("", Some(order));
}
