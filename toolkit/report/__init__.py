"""From measurements to what people look at: charts, the HTML report, notebook views."""
