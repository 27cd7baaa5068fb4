//! Charts as SVG text.
//!
//! Promises: a chart stands alone, takes its colours from the page's classes, and has round numbers
//! on its axes. Must not: know what the figures mean. Fails: never; a chart without points says so.

use std::fmt::Write;

use super::page::escape;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

/// More points than this cannot be told apart on a screen.
const POINT_LIMIT: usize = 1_000;

/// How the vertical axis grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By factors of ten.
    Decades,
}

/// How points that fall together become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// Their mean: for rates.
    Mean,
    /// The highest: for latencies, where a peak must not vanish.
    Highest,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// The number of its colour.
    pub(crate) colour: usize,
    /// Drawn dashed, to set one run apart from the other.
    pub(crate) dashed: bool,
    /// Its points, by time.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over time.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// What it shows.
    pub(crate) title: &'static str,
    /// The unit of the vertical axis.
    pub(crate) unit: &'static str,
    /// How the vertical axis grows.
    pub(crate) scale: Scale,
    /// How points that fall together become one.
    pub(crate) merge: Merge,
    /// Its lines.
    pub(crate) lines: Vec<Line>,
    /// The time that is measured; what lies outside is shaded.
    pub(crate) measured: Option<(f64, f64)>,
}

/// Maps figures to places on the canvas.
struct Frame {
    x_from: f64,
    x_to: f64,
    y_from: f64,
    y_to: f64,
    scale: Scale,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        let part = (value - self.x_from) / (self.x_to - self.x_from).max(f64::MIN_POSITIVE);
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.y_from) / (self.y_to - self.y_from),
            Scale::Decades => {
                (value.max(self.y_from) / self.y_from).log10() / (self.y_to / self.y_from).log10()
            }
        };
        HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    /// The chart as a figure: title, legend and SVG.
    pub(crate) fn figure(&self) -> String {
        let lines: Vec<Line> = self.lines.iter().map(|line| thinned(line, self.merge)).collect();
        let mut text = format!(
            "<figure><figcaption><b>{}</b> <span class=unit>{}</span>{}</figcaption>",
            escape(self.title),
            escape(self.unit),
            legend(&lines)
        );
        let values = || lines.iter().flat_map(|line| &line.points);
        if values().next().is_none() {
            text.push_str("<p class=none>nothing was measured</p></figure>");
            return text;
        }
        let frame = Frame {
            x_from: values().map(|point| point.0).fold(f64::MAX, f64::min).min(0.0),
            x_to: values().map(|point| point.0).fold(0.0, f64::max),
            ..vertical(self.scale, values().map(|point| point.1))
        };
        text.push_str(&open_svg(self.title));
        self.shade(&mut text, &frame);
        horizontal_grid(&mut text, &frame);
        time_axis(&mut text, &frame);
        for line in &lines {
            path(&mut text, &frame, line);
        }
        text.push_str("</svg></figure>");
        text
    }

    fn shade(&self, text: &mut String, frame: &Frame) {
        let Some((from, to)) = self.measured else { return };
        for (begin, end) in [(frame.x_from, from), (to, frame.x_to)] {
            let (left, right) = (frame.x(begin), frame.x(end));
            if right - left > 0.5 {
                put(
                    text,
                    format_args!(
                        "<rect class=shade x='{left:.1}' y='{TOP}' width='{:.1}' height='{:.1}'/>",
                        right - left,
                        HEIGHT - TOP - BOTTOM
                    ),
                );
            }
        }
    }
}

/// Bars of a distribution whose steps grow by a factor: the upper end of each step, and its count.
pub(crate) fn distribution(title: &str, unit: &str, runs: &[(String, &[(f64, u64)])]) -> String {
    let lines: Vec<Line> = runs
        .iter()
        .enumerate()
        .map(|(colour, (name, _))| Line {
            name: name.clone(),
            colour,
            dashed: false,
            points: Vec::new(),
        })
        .collect();
    let shown_legend = if runs.len() > 1 { legend(&lines) } else { String::new() };
    let mut text = format!(
        "<figure><figcaption><b>{}</b> <span class=unit>{}</span>{shown_legend}</figcaption>",
        escape(title),
        escape(unit)
    );
    let ends = || runs.iter().flat_map(|(_, steps)| steps.iter()).map(|step| step.0);
    if ends().next().is_none() {
        text.push_str("<p class=none>nothing was measured</p></figure>");
        return text;
    }
    let shares: Vec<Vec<(f64, f64)>> = runs.iter().map(|(_, steps)| share(steps)).collect();
    let highest = shares.iter().flatten().map(|step| step.1).fold(0.0, f64::max);
    let frame = vertical(Scale::Linear, [highest].into_iter());
    let (low, high) = (ends().fold(f64::MAX, f64::min) / 1.1, ends().fold(0.0, f64::max));
    let x = |value: f64| {
        let part = (value.max(low) / low).ln() / (high / low).ln().max(f64::MIN_POSITIVE);
        LEFT + part * (WIDTH - LEFT - RIGHT)
    };
    text.push_str(&open_svg(title));
    horizontal_grid(&mut text, &frame);
    for value in round_values(low, high) {
        tick_below(&mut text, x(value), &short(value));
    }
    for (colour, steps) in shares.iter().enumerate() {
        for &(end, percent) in steps {
            let (left, right, top) = (x(end / 1.1), x(end), frame.y(percent));
            put(
                &mut text,
                format_args!(
                    "<rect class='bar c{colour}' x='{left:.1}' y='{top:.1}' width='{:.1}' \
                 height='{:.1}'><title>up to {} ms: {percent:.2} %</title></rect>",
                    (right - left - 0.6).max(0.6),
                    HEIGHT - BOTTOM - top,
                    short(end)
                ),
            );
        }
    }
    text.push_str("</svg></figure>");
    text
}

fn share(steps: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let total = steps.iter().map(|step| step.1).sum::<u64>().max(1) as f64;
    steps.iter().map(|&(end, count)| (end, count as f64 * 100.0 / total)).collect()
}

fn open_svg(title: &str) -> String {
    format!("<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{}'>", escape(title))
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes every write");
}

fn legend(lines: &[Line]) -> String {
    let mut text = String::from("<span class=legend>");
    for line in lines {
        let dashed = if line.dashed { " dashed" } else { "" };
        put(
            &mut text,
            format_args!(
                "<span><i class='k{}{dashed}'></i>{}</span>",
                line.colour,
                escape(&line.name)
            ),
        );
    }
    text.push_str("</span>");
    text
}

/// The vertical part of a frame that holds all values.
fn vertical(scale: Scale, values: impl Iterator<Item = f64>) -> Frame {
    let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    let highest = values.iter().copied().fold(0.0, f64::max);
    let (y_from, y_to) = match scale {
        Scale::Linear => (0.0, if highest > 0.0 { round_up(highest) } else { 1.0 }),
        Scale::Decades => {
            let lowest = values.iter().copied().fold(f64::MAX, f64::min).min(highest.max(1.0));
            let from = 10f64.powf(lowest.log10().floor());
            (from, 10f64.powf(highest.max(from * 1.01).log10().ceil()))
        }
    };
    Frame { x_from: 0.0, x_to: 1.0, y_from, y_to, scale }
}

/// The distance of grid lines: 1, 2 or 5 times a power of ten, four to eight of them up to `highest`.
fn step(highest: f64) -> f64 {
    let power = 10f64.powf((highest / 4.0).log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|f| f * power).find(|s| *s <= highest / 4.0).unwrap_or(power)
}

fn round_up(highest: f64) -> f64 {
    let step = step(highest);
    (highest * 1.02 / step).ceil() * step
}

/// Round values from `low` to `high` for an axis that grows by factors: powers of ten, and twice and
/// five times these when there are few.
fn round_values(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let factors: &[f64] = if last - first <= 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    (first..=last)
        .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
        // The bounds are powers of ten that were computed, so a little slack keeps them in.
        .filter(|value| (low * 0.999..=high * 1.001).contains(value))
        .collect()
}

fn horizontal_grid(text: &mut String, frame: &Frame) {
    let values: Vec<f64> = match frame.scale {
        Scale::Linear => {
            let step = step(frame.y_to);
            (0..=(frame.y_to / step).round() as u32).map(|at| f64::from(at) * step).collect()
        }
        Scale::Decades => round_values(frame.y_from, frame.y_to),
    };
    for value in values {
        let y = frame.y(value);
        put(
            text,
            format_args!(
                "<line class=grid x1='{LEFT}' x2='{}' y1='{y:.1}' y2='{y:.1}'/>\
             <text class=tick x='{}' y='{:.1}' text-anchor=end>{}</text>",
                WIDTH - RIGHT,
                LEFT - 7.0,
                y + 4.0,
                short(value)
            ),
        );
    }
}

fn time_axis(text: &mut String, frame: &Frame) {
    let length = frame.x_to - frame.x_from;
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0];
    let step = steps.into_iter().find(|step| length / step <= 8.0).unwrap_or(length / 10.0);
    let mut at = 0.0;
    while at <= frame.x_to {
        let label = if step >= 60.0 { format!("{} min", at / 60.0) } else { format!("{at} s") };
        tick_below(text, frame.x(at), &label);
        at += step;
    }
}

fn tick_below(text: &mut String, x: f64, label: &str) {
    put(
        text,
        format_args!(
            "<text class=tick x='{x:.1}' y='{}' text-anchor=middle>{label}</text>",
            HEIGHT - 8.0
        ),
    );
}

fn path(text: &mut String, frame: &Frame, line: &Line) {
    let dashed = if line.dashed { " dashed" } else { "" };
    put(text, format_args!("<polyline class='line c{}{dashed}' points='", line.colour));
    for &(x, y) in &line.points {
        put(text, format_args!("{:.1},{:.1} ", frame.x(x), frame.y(y)));
    }
    text.push_str("'/>");
}

fn thinned(line: &Line, merge: Merge) -> Line {
    let group = line.points.len().div_ceil(POINT_LIMIT).max(1);
    let merged = |points: &[(f64, f64)]| {
        let values = || points.iter().map(|point| point.1);
        let value = match merge {
            Merge::Mean => values().sum::<f64>() / points.len() as f64,
            Merge::Highest => values().fold(0.0, f64::max),
        };
        (points[points.len() - 1].0, value)
    };
    Line { points: line.points.chunks(group).map(merged).collect(), ..line.clone() }
}

/// A number as short as an axis wants it.
pub(crate) fn short(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = if scaled.abs() >= 100.0 {
        format!("{scaled:.0}")
    } else if scaled.abs() >= 1.0 || scaled == 0.0 {
        format!("{scaled:.1}")
    } else {
        format!("{scaled:.3}")
    };
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, scale: Scale) -> Chart {
        let line = Line { name: "a <b>".to_owned(), colour: 1, dashed: false, points };
        Chart {
            title: "t",
            unit: "ms",
            scale,
            merge: Merge::Highest,
            lines: vec![line],
            measured: Some((1.0, 2.0)),
        }
    }

    #[test]
    fn axes_have_round_numbers_that_hold_the_highest_value() {
        for highest in [0.003, 0.7, 1.0, 9.99, 101_000.0] {
            let (step, top) = (step(highest), round_up(highest));
            assert!(top >= highest && top <= highest * 1.6, "{highest}: {top}");
            assert!((top / step - (top / step).round()).abs() < 1e-6);
        }
    }

    #[test]
    fn numbers_are_short() {
        let cases = [(0.0, "0"), (0.25, "0.25"), (20.0, "20"), (2_500.0, "2500")];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
        assert_eq!((short(100_000.0), short(1_500_000.0)), ("100k".to_owned(), "1.5M".to_owned()));
    }

    #[test]
    fn a_chart_escapes_names_and_places_points_inside() {
        for scale in [Scale::Linear, Scale::Decades] {
            let text = chart(vec![(0.0, 1.0), (3.0, 250.0)], scale).figure();
            assert!(text.contains("a &lt;b&gt;") && text.contains("<polyline"));
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    #[test]
    fn a_chart_of_nothing_or_of_zeros_is_no_accident() {
        assert!(chart(Vec::new(), Scale::Linear).figure().contains("nothing was measured"));
        for scale in [Scale::Linear, Scale::Decades] {
            let text = chart(vec![(1.0, 0.0), (2.0, 0.0)], scale).figure();
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
        assert!(distribution("t", "%", &[("a".to_owned(), &[])]).contains("nothing"));
    }

    #[test]
    fn axes_that_grow_by_factors_have_round_values() {
        assert_eq!(round_values(8.0, 60.0), [10.0, 20.0, 50.0]);
        assert_eq!(round_values(0.01, 10_000.0).len(), 7);
    }

    #[test]
    fn thinning_keeps_peaks() {
        let mut points: Vec<(f64, f64)> = (0..5_000).map(|at| (f64::from(at), 1.0)).collect();
        points[1_234].1 = 99.0;
        let line = Line { name: String::new(), colour: 0, dashed: false, points };
        let thin = thinned(&line, Merge::Highest);
        assert!(thin.points.len() <= POINT_LIMIT);
        assert!(thin.points.iter().any(|point| point.1 == 99.0));
    }
}
