//! Charts as SVG text.
//!
//! Promises: a chart stands alone, and the page gives its colours others in the dark. Must not: know what
//! the figures mean. Fails: never; a chart without points says so.

use std::ops::Range;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::page::escape;

/// In pixels; the page scales it.
const SIZE: (u32, u32) = (560, 220);

/// The colours, as the page's style knows them.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x25, 0x63, 0xc9),
    RGBColor(0xd9, 0x73, 0x0d),
    RGBColor(0x12, 0x8a, 0x72),
    RGBColor(0x82, 0x50, 0xc4),
];
const GRID: RGBColor = RGBColor(0xe2, 0xe6, 0xec);
const SHADE: RGBColor = RGBColor(0xee, 0xf1, 0xf5);
const LABEL: RGBColor = RGBColor(0x5d, 0x68, 0x78);

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
pub(crate) struct ChartLine {
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
    pub(crate) lines: Vec<ChartLine>,
    /// The time that is measured; what lies outside is shaded.
    pub(crate) measured: Option<(f64, f64)>,
}

/// A coloured part of the canvas.
struct Bar {
    from: (f64, f64),
    to: (f64, f64),
    style: ShapeStyle,
}

impl Chart {
    /// The chart as a figure: title, legend and SVG.
    pub(crate) fn figure(&self) -> String {
        let lines: Vec<ChartLine> =
            self.lines.iter().map(|line| thinned(line, self.merge)).collect();
        let values = || lines.iter().flat_map(|line| &line.points);
        let x_from = values().map(|point| point.0).fold(0.0, f64::min);
        let x_to = values().map(|point| point.0).fold(x_from + 1.0, f64::max);
        let x = x_from..x_to;
        let svg = values().next().map(|_| match self.scale {
            Scale::Linear => {
                let y = 0.0..highest(values().map(|point| point.1)) * 1.05;
                let shade = self.shade(&x, &y);
                plot(x, y, &seconds, &shade, &lines)
            }
            Scale::Decades => {
                let y = decades(values().map(|point| point.1));
                let shade = self.shade(&x, &y);
                // What lies below the axis, as zeros do, is drawn on it.
                let raised: Vec<ChartLine> =
                    lines.iter().map(|line| at_least(line, y.start)).collect();
                plot(x, y.log_scale(), &seconds, &shade, &raised)
            }
        });
        figure(self.title, self.unit, &legend(&lines), svg)
    }

    /// What is not measured.
    fn shade(&self, x: &Range<f64>, y: &Range<f64>) -> Vec<Bar> {
        let Some((from, to)) = self.measured else { return Vec::new() };
        let outside = [(x.start, from), (to, x.end)].into_iter().filter(|(begin, end)| begin < end);
        let bar =
            |(begin, end)| Bar { from: (begin, y.start), to: (end, y.end), style: SHADE.filled() };
        outside.map(bar).collect()
    }
}

/// Bars of a distribution whose steps grow by a factor: the upper end of each step, and its count.
pub(crate) fn distribution(title: &str, unit: &str, runs: &[(String, &[(f64, u64)])]) -> String {
    let names = runs.iter().enumerate().map(|(colour, (name, _))| ChartLine {
        name: name.clone(),
        colour,
        dashed: false,
        points: Vec::new(),
    });
    let names: Vec<ChartLine> = names.collect();
    let shown_legend = if runs.len() > 1 { legend(&names) } else { String::new() };
    let ends = || runs.iter().flat_map(|(_, steps)| steps.iter()).map(|step| step.0);
    let shares: Vec<Vec<(f64, f64)>> = runs.iter().map(|(_, steps)| share(steps)).collect();
    let svg = ends().next().map(|_| {
        let x = ends().fold(f64::MAX, f64::min) / STEP..ends().fold(0.0, f64::max);
        let y = 0.0..highest(shares.iter().flatten().map(|step| step.1)) * 1.05;
        let bars = shares.iter().enumerate().flat_map(|(colour, steps)| {
            let style = COLOURS[colour % COLOURS.len()].mix(0.6).filled();
            let bar = move |&(end, percent): &(f64, f64)| Bar {
                from: (end / STEP, 0.0),
                to: (end, percent),
                style,
            };
            steps.iter().map(bar)
        });
        let bars: Vec<Bar> = bars.collect();
        plot(x.log_scale(), y, &|value| short(*value), &bars, &[])
    });
    figure(title, unit, &shown_legend, svg)
}

/// Each step of a distribution ends so much higher than the one before.
const STEP: f64 = 1.1;

fn share(steps: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let total = steps.iter().map(|step| step.1).sum::<u64>().max(1) as f64;
    steps.iter().map(|&(end, count)| (end, count as f64 * 100.0 / total)).collect()
}

/// A figure around a chart, or around the word that there is none.
fn figure(title: &str, unit: &str, legend: &str, svg: Option<String>) -> String {
    format!(
        "<figure><figcaption><b>{}</b> <span class=unit>{}</span>{legend}</figcaption>{}</figure>",
        escape(title),
        escape(unit),
        svg.unwrap_or_else(|| "<p class=none>nothing was measured</p>".to_owned())
    )
}

fn legend(lines: &[ChartLine]) -> String {
    let entry = |line: &ChartLine| {
        let dashed = if line.dashed { " dashed" } else { "" };
        let name = escape(&line.name);
        format!("<span><i class='k{}{dashed}'></i>{name}</span>", line.colour)
    };
    let entries: String = lines.iter().map(entry).collect();
    format!("<span class=legend>{entries}</span>")
}

/// The highest of these; 1 when all are 0.
fn highest(values: impl Iterator<Item = f64>) -> f64 {
    let highest = values.fold(0.0, f64::max);
    if highest > 0.0 { highest } else { 1.0 }
}

/// The powers of ten between which all values above 0 lie.
fn decades(values: impl Iterator<Item = f64>) -> Range<f64> {
    let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    let highest = highest(values.iter().copied());
    let lowest = values.iter().copied().fold(highest, f64::min);
    let from = 10f64.powf(lowest.log10().floor());
    from..10f64.powf(highest.max(from * 1.01).log10().ceil())
}

fn at_least(line: &ChartLine, lowest: f64) -> ChartLine {
    let points = line.points.iter().map(|&(x, y)| (x, y.max(lowest))).collect();
    ChartLine { points, ..line.clone() }
}

fn seconds(value: &f64) -> String {
    format!("{} s", short(*value))
}

/// The SVG of bars and lines over these axes.
fn plot<X, Y>(
    x: X,
    y: Y,
    x_label: &dyn Fn(&f64) -> String,
    bars: &[Bar],
    lines: &[ChartLine],
) -> String
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut svg = String::new();
    let draw = || {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin_top(8)
            .margin_right(16)
            .x_label_area_size(26)
            .y_label_area_size(48)
            .build_cartesian_2d(x, y)?;
        chart.draw_series(bars.iter().map(|bar| Rectangle::new([bar.from, bar.to], bar.style)))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(("sans-serif", 14).into_font().color(&LABEL))
            .y_label_formatter(&|value| short(*value))
            .x_label_formatter(x_label)
            .draw()?;
        for line in lines {
            let style = COLOURS[line.colour % COLOURS.len()].stroke_width(2);
            let points = line.points.iter().copied();
            if line.dashed {
                chart.draw_series(DashedLineSeries::new(points, 5, 4, style))?;
            } else {
                chart.draw_series(LineSeries::new(points, style))?;
            }
        }
        area.present()
    };
    draw().expect("a String takes every write");
    svg
}

fn thinned(line: &ChartLine, merge: Merge) -> ChartLine {
    let group = line.points.len().div_ceil(POINT_LIMIT).max(1);
    let merged = |points: &[(f64, f64)]| {
        let values = || points.iter().map(|point| point.1);
        let value = match merge {
            Merge::Mean => values().sum::<f64>() / points.len() as f64,
            Merge::Highest => values().fold(0.0, f64::max),
        };
        (points[points.len() - 1].0, value)
    };
    ChartLine { points: line.points.chunks(group).map(merged).collect(), ..line.clone() }
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
        let line = ChartLine { name: "a <b>".to_owned(), colour: 1, dashed: false, points };
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
            assert!(
                text.contains("a &lt;b&gt;")
                    && text.contains("<polyline")
                    && text.contains("#D9730D")
            );
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
    fn thinning_keeps_peaks() {
        let mut points: Vec<(f64, f64)> = (0..5_000).map(|at| (f64::from(at), 1.0)).collect();
        points[1_234].1 = 99.0;
        let line = ChartLine { name: String::new(), colour: 0, dashed: false, points };
        let thin = thinned(&line, Merge::Highest);
        assert!(thin.points.len() <= POINT_LIMIT);
        assert!(thin.points.iter().any(|point| point.1 == 99.0));
    }
}
