"""Takes the README's pictures from the real app on the demo run; started by `make screenshots`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from browser_driver import Tab, chromium, served

from feature_lens.demos import demo_settings
from feature_lens.extract import ExtractSettings, extract_run
from feature_lens.networks.zoo import Digits, ModularAddition
from feature_lens.studies.running import run_studies

FOLDER = Path(__file__).parents[1] / "data" / "screenshots"
PICTURES = {
    "overview": "overview",
    "browse": "browse?set=eigen",
    "feature": "feature?set=eigen&feature=2",
    "example": "example?example=3&by=unit",
    "dual": "dual",
    "compare": "compare?set=eigen&feature=2&set_b=neurons_3",
    "export": "export?set=eigen&which=one&feature=2&format=zip",
}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = extract_run(
            Digits().shipped(), Digits().examples(), folder / "digits.h5", ExtractSettings(dual=True), name="digits"
        )
        with chromium() as browser, served([run], folder) as address:
            tab = Tab(browser)
            for picture, place in PICTURES.items():
                tab.go(address + place)
                tab.fine()
                tab.page.screenshot(path=FOLDER / f"{picture}.png")
            tab.close()
        net = ModularAddition()
        settings = replace(demo_settings(net), dual=False, neurons=())
        training = net.shipped_training()
        sums = extract_run(
            net.network(training),
            net.examples(),
            folder / "sums.h5",
            settings,
            name="modular_addition",
            snapshots={**training.snapshots, net.epochs: training.trained},
        )
        with chromium() as browser, served([sums], folder) as address:
            tab = Tab(browser)
            tab.page.set_viewport_size({"width": 1400, "height": 1300})
            tab.go(address + "feature?set=unit_blocks_trace&feature=2")
            tab.fine()
            place = tab.page.get_by_text("On all pairs").bounding_box()
            assert place is not None
            part = {"x": place["x"] - 12, "y": place["y"] - 10, "width": 900, "height": 560}
            tab.page.screenshot(path=FOLDER / "pairs.png", clip=part)
            tab.page.set_viewport_size({"width": 1400, "height": 1000})
            tab.go(address + "dynamics")
            tab.fine()
            tab.page.screenshot(path=FOLDER / "dynamics.png")
            tab.close()
        study, *_ = run_studies(["digits"], folder / "studies")["digits"]
        with chromium() as browser, served([study], folder) as address:
            tab = Tab(browser)
            tab.page.set_viewport_size({"width": 1400, "height": 1300})
            tab.go(address + "study")
            tab.fine()
            tab.page.screenshot(path=FOLDER / "study.png")
            tab.close()


if __name__ == "__main__":
    main()
