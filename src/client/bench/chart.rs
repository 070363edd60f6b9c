//! A chart as an SVG picture: panels of lines, written without a drawing library and shown by any browser.

use std::fmt::Write;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
/// Margins around the area with the lines: left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (62.0, 118.0, 34.0, 44.0);
/// Colors that people with any kind of color vision can tell apart (Okabe and Ito).
const COLORS: [&str; 8] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999"];
/// The dash patterns of the lines, for print without color.
const STROKES: [&str; 3] = ["none", "7 3", "2 3"];

/// A line of a panel: a name and its points.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// A panel of a chart. Both axes are logarithmic, because loads and sizes grow in powers.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) series: Vec<Series>,
}

/// Draws panels side by side; `caption` below them describes the measurement.
pub(super) fn draw(panels: &[Panel], caption: &str) -> String {
    let panels: Vec<&Panel> = panels.iter().filter(|panel| panel.points().next().is_some()).collect();
    let (width, height) = (WIDTH * panels.len() as f64, HEIGHT + 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (n, panel) in panels.iter().enumerate() {
        panel.draw(WIDTH * n as f64, &mut svg);
    }
    text(&mut svg, (12.0, HEIGHT + 14.0), "start", "#555", caption);
    svg + "</svg>\n"
}

impl Panel {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series.iter().flat_map(|series| series.points.iter().copied()).filter(|(x, y)| *x > 0.0 && *y > 0.0)
    }

    fn draw(&self, left: f64, svg: &mut String) {
        let (x_axis, y_axis) =
            (Axis::of(self.points().map(|point| point.0)), Axis::of(self.points().map(|point| point.1)));
        let (from_x, to_x) = (left + MARGIN.0, left + WIDTH - MARGIN.1);
        let (from_y, to_y) = (HEIGHT - MARGIN.3, MARGIN.2);
        let to_pixel = |(x, y): (f64, f64)| {
            (from_x + (to_x - from_x) * x_axis.share(x), from_y + (to_y - from_y) * y_axis.share(y))
        };
        text(svg, (left + 12.0, 18.0), "start", "#000", &self.title);
        text(svg, ((from_x + to_x) / 2.0, HEIGHT - 8.0), "middle", "#333", self.x);
        text(svg, (left + 12.0, to_y - 4.0), "start", "#333", self.y);
        for tick in y_axis.ticks() {
            let (_, y) = to_pixel((1.0, tick));
            line(svg, (from_x, y), (to_x, y), "#ddd");
            text(svg, (from_x - 6.0, y + 4.0), "end", "#333", &short(tick));
        }
        let mut xs: Vec<f64> = self.points().map(|point| point.0).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        for x in xs {
            let (at, _) = to_pixel((x, 1.0));
            line(svg, (at, from_y), (at, from_y + 4.0), "#333");
            text(svg, (at, from_y + 16.0), "middle", "#333", &short(x));
        }
        line(svg, (from_x, from_y), (to_x, from_y), "#333");
        for (n, series) in self.series.iter().enumerate() {
            self.draw_series(n, series, to_pixel, to_x, svg);
        }
    }

    fn draw_series(
        &self,
        n: usize,
        series: &Series,
        place: impl Fn((f64, f64)) -> (f64, f64),
        to_x: f64,
        svg: &mut String,
    ) {
        let (color, stroke) = (COLORS[n % COLORS.len()], STROKES[n % STROKES.len()]);
        let points: Vec<(f64, f64)> =
            series.points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0).map(&place).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\" stroke-dasharray=\"{stroke}\"/>",
            path.join(" ")
        );
        for (x, y) in &points {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" fill=\"{color}\"/>");
        }
        // The names are in a column beside the lines, because names at the ends of the lines would overlap.
        let at = MARGIN.2 + 6.0 + 15.0 * n as f64;
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" y1=\"{at}\" x2=\"{:.1}\" y2=\"{at}\" stroke=\"{color}\" stroke-width=\"1.8\" \
             stroke-dasharray=\"{stroke}\"/>",
            to_x + 8.0,
            to_x + 28.0
        );
        text(svg, (to_x + 32.0, at + 4.0), "start", "#000", &series.name);
    }
}

/// A logarithmic axis.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis from the smallest value divided by 1.2 to the largest value times 1.2.
    fn of(values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) = values.fold((f64::MAX, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
        if high <= 0.0 { Axis { low: 1.0, high: 2.0 } } else { Axis { low: low / 1.2, high: high * 1.2 } }
    }

    /// The position of a value on the axis: 0 at `low`, 1 at `high`.
    fn share(&self, value: f64) -> f64 {
        (value / self.low).ln() / (self.high / self.low).ln()
    }

    /// The tick marks: 1, 2 and 5 times each power of ten.
    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let mut power = 10f64.powf(self.low.log10().floor());
        while power <= self.high {
            ticks.extend([1.0, 2.0, 5.0].map(|digit| digit * power));
            power *= 10.0;
        }
        ticks.retain(|tick| (self.low..=self.high).contains(tick));
        ticks
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), color: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, color: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{words}</text>",
        at.0, at.1
    );
}

/// A number in a few characters: `250`, `1.5k`, `64k`, `1M`.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        1e6.. => (number / 1e6, "M"),
        1e3.. => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let text = if number < 10.0 { format!("{number:.1}") } else { format!("{number:.0}") };
    text.strip_suffix(".0").unwrap_or(&text).to_string() + unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> Panel {
        let points = |factor: f64| [1.0, 16.0, 64.0].map(|x| (x, x * factor)).to_vec();
        Panel {
            title: "throughput".to_string(),
            x: "clients",
            y: "ops/s",
            series: vec![
                Series { name: "a < b & c".to_string(), points: points(100.0) },
                Series { name: "none".to_string(), points: vec![(4.0, 0.0)] },
            ],
        }
    }

    #[test]
    fn every_point_is_inside_its_panel_and_every_word_is_escaped() {
        let svg = draw(&[panel(), panel()], "how & when");
        assert_eq!(svg.matches("<circle").count(), 6, "a logarithmic axis cannot show a point at zero");
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("how &amp; when"), "{svg}");
        let numbers = |name: &str| -> Vec<f64> {
            let start = format!("{name}=\"");
            svg.split(&start).skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
        };
        assert!(numbers("cx").iter().all(|x| (0.0..=2.0 * WIDTH).contains(x)));
        assert!(numbers("cy").iter().all(|y| (0.0..=HEIGHT).contains(y)));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn panel_without_points_is_omitted() {
        let empty = Panel { series: Vec::new(), ..panel() };
        assert!(!draw(&[empty], "").contains("throughput"));
    }

    #[test]
    fn axes_contain_their_values_and_have_ticks() {
        let axis = Axis::of([120.0, 45_000.0].into_iter());
        assert!(axis.share(120.0) > 0.0 && axis.share(45_000.0) < 1.0);
        assert!(axis.ticks().len() >= 6, "{:?}", axis.ticks());
        assert_eq!([0.5, 12.0, 1_500.0, 64_000.0, 2e6].map(short), ["0.5", "12", "1.5k", "64k", "2M"]);
    }
}
