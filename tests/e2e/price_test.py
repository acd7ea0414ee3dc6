"""What serving costs, as `drover plan --serve` says it: the worked example, sums that fit together, and refusals."""

import json
import pathlib
import tempfile
import unittest

from case import ROOT, run

PRICES = ROOT / "configs" / "planning" / "prices.example.yaml"
HARDWARE = ROOT / "configs" / "planning" / "hardware.yaml"
BOX = ["--model", "llama3.1-405b", "--weights", "fp8", "--gpu", "h100", "--gpus", 8]
EVEN = ["--prompt-tokens", 1000, "--answer-tokens", 1000]
HOURS = 365.25 * 24 / 12  # a month


def plan(*words, check=0):
    return run("plan", "--serve", *words, check=check)


def plan_json(*words):
    return json.loads(plan(*words, "--json").stdout)


class Price(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="drover-price-")
        self.addCleanup(folder.cleanup)
        self.home = pathlib.Path(folder.name)

    def file(self, source, *changes):
        """A copy with some texts replaced, each of which is there."""
        text = source.read_text()
        for old, new in changes:
            self.assertIn(old, text)
            text = text.replace(old, new)
        path = self.home / source.name
        path.write_text(text)
        return path

    def test_the_sums_of_the_example_fit_together(self):
        answer = plan_json(*BOX, *EVEN, "--price", PRICES, "--tokens-a-month", "5e9", "--from", "2024-07-23")
        self.assertEqual((answer["boxes"], answer["bought"], answer["currency"]), (1, 275000, "USD"))
        busy = answer["answer_tokens_per_second"] * 2 * 3600
        self.assertAlmostEqual(answer["tokens_a_month_of_a_box"] / (busy * 0.6 * HOURS), 1)
        self.assertAlmostEqual(answer["running_a_month"], 1775 + 5e9 / busy * 10.2 * 0.12)
        self.assertAlmostEqual(answer["a_month"], 275000 / 48 + answer["running_a_month"])
        self.assertAlmostEqual(answer["million_tokens"], answer["a_month"] / 5000)
        apis = {api["name"]: api for api in answer["apis"]}
        self.assertEqual(len(apis), 5)
        gpt = apis["GPT-4o"]
        self.assertAlmostEqual(gpt["million_tokens"], 10)
        self.assertAlmostEqual(gpt["months"], 275000 / (50000 - answer["running_a_month"]))
        self.assertAlmostEqual(gpt["tokens"] / 5e9, gpt["months"])
        self.assertTrue(gpt["day"].startswith("2025-01"), gpt)
        mini = apis["GPT-4o mini"]
        self.assertEqual((mini["months"], mini["tokens"], mini["least_tokens_a_month"]), (None, None, None))
        self.assertIn("running them alone costs more", mini["never"])
        self.assertNotIn("never", gpt)
        text = plan(*BOX, *EVEN, "--price", PRICES, "--tokens-a-month", "5e9", "--from", "2024-07-23").stdout
        self.assertRegex(text, r"GPT-4o +50 000.00 +10.00 .* paid back after .* months: 2025-01-")
        self.assertRegex(text, r"GPT-4o mini .*never, also when full +never: running them alone")

    def test_the_price_of_the_box_alone_over_the_price_of_the_api(self):
        """Nothing but the box: 250 000 at 7.50 and 0.2625 a million, 262 500 at 10 and 0.375."""
        bare = [
            ("kwh_price: 0.12 ", "kwh_price: 1.0e-9 "),
            ("  hosting_a_month: 1775", "  # "),
            ("years: 4 ", "years: 99 "),
        ]
        for price, words, billions in (
            ("250000", ["--prompt-tokens", 1500, "--answer-tokens", 500], (33.33, 952.4)),
            ("262500", EVEN, (26.25, 700.0)),
        ):
            prices = self.file(PRICES, *bare, ("  price: 275000 ", f"  price: {price} "))
            apis = plan_json(*BOX, *words, "--price", prices)["apis"]
            for api, expected in zip(apis, billions):
                self.assertAlmostEqual(api["tokens"] / 1e9, expected, delta=expected / 1000)

    def test_copies_serve_side_by_side(self):
        words = ["--model", "llama3.1-70b", "--weights", "fp8", "--gpu", "h200", *EVEN]
        four, eight = (plan_json(*words, "--gpus", gpus, "--tp", 4) for gpus in (4, 8))
        self.assertEqual(eight["users"], 2 * four["users"])
        self.assertAlmostEqual(eight["answer_tokens_per_second"], 2 * four["answer_tokens_per_second"])
        self.assertEqual(eight["between_tokens_seconds"], four["between_tokens_seconds"])
        self.assertIn("2 copies on 4 GPUs each", plan(*words, "--gpus", 8, "--tp", 4).stdout)
        rent = 8 * 4.54 * HOURS
        self.assertAlmostEqual(eight["running_a_month"], rent)
        self.assertEqual((eight["bought"], eight["apis"]), (0, []))

    def test_limits(self):
        quick, slow = (plan_json(*BOX, *EVEN, "--between-tokens-ms", ms) for ms in (30, 60))
        self.assertLess(quick["users"], slow["users"])
        self.assertLess(quick["between_tokens_seconds"], 0.03)
        self.assertLess(quick["answer_tokens_per_second"], slow["answer_tokens_per_second"])
        self.assertLess(slow["between_tokens_seconds_alone"], quick["between_tokens_seconds"])
        fp8, bf16 = (
            plan_json("--model", "llama3.1-8b", "--gpu", "h100", *EVEN, "--weights", w) for w in ("fp8", "bf16")
        )
        self.assertLess(fp8["weights_bytes"], bf16["weights_bytes"])
        self.assertGreater(fp8["room_tokens"], bf16["room_tokens"])

    def test_a_model_of_ones_own_and_a_table_of_ones_own(self):
        run("make-tiny", self.home / "model", check=0)
        words = ["--model", self.home / "model", "--gpu", "h100", "--prompt-tokens", 10, "--answer-tokens", 10]
        plan(*words)
        table = self.file(HARDWARE, ("h100:", "mine:"), ("value: 3.006e12", "value: 1.5e12"))
        own = ["--model", "llama3.1-8b", *EVEN, "--hardware", table, "--gpu"]
        slow = plan_json(*own, "mine")["between_tokens_seconds_alone"]
        fast = plan_json("--model", "llama3.1-8b", *EVEN, "--gpu", "h100")["between_tokens_seconds_alone"]
        self.assertAlmostEqual(slow / fast, 3.006 / 1.5, delta=0.02)
        self.assertIn('knows no GPU "h100"; it has mine, h200', plan(*own, "h100", check=64).stderr)
        table.write_text("x1:\n  cores: 3\n")
        said = plan(*own, "x1", check=78).stderr
        self.assertIn(f"{table}:2:3: x1.cores is unknown", said)
        self.assertIn("Drover does not run on mi300x", plan("--model", "llama3.1-8b", *EVEN, "--gpu", "mi300x").stdout)

    def test_what_is_refused(self):
        small = ["--model", "llama3.1-8b", "--gpu", "h100", *EVEN]
        for words, code, why in (
            ([*BOX, *EVEN, "--tp", 3], 64, "--gpus 8 is not a multiple of --tp 3"),
            ([*small, "--gpus", 3], 64, "--tp 3 does not divide the 8 key/value heads"),
            ([*small, "--gpus", 16, "--tp", 16], 64, "--tp 16 does not divide the 8 key/value heads"),
            ([*BOX[:2], *BOX[4:], *EVEN], 64, "the weights take 101.5 GB of each GPU"),
            ([*small, "--tokens-a-month", 0], 64, "0 is not a number above 0"),
            ([*small, "--gpus", 0], 64, "--gpus 0: allowed are a number of GPUs"),
            ([*small, "--gpus", "8..16"], 64, "with --serve it is the number of GPUs of one box"),
            (["--model", "llama3.1-8b", *EVEN, "--gpus", 8], 64, "name its GPU (--gpu h100)"),
            ([*small, "--from", "soon"], 64, "--from soon is no day"),
            ([*small, "--price", self.home / "absent.yaml"], 66, "absent.yaml"),
            ([*small, "--price", PRICES], 78, "has 8 GPUs, and --gpus is 1"),
            ([*small, "--between-tokens-ms", 1], 64, "one answer alone has"),
            ([*BOX, "--prompt-tokens", 131000, "--answer-tokens", 1000], 64, "more than the 131072 positions"),
            (["--gpu", "h100", *EVEN], 64, "drover plan --serve needs --model"),
            (["--model", "llama3.1-8b", "--gpu", "h100"], 64, "drover plan --serve needs --prompt-tokens"),
            ([*EVEN, "--gpu", "h100", "--model", "nothing"], 66, "not a shape known by name"),
            (["recipe.yaml"], 64, "recipe excludes --serve"),
        ):
            with self.subTest(why):
                said = plan(*words, check=code)
                self.assertIn(why, said.stderr)
                self.assertEqual(said.stdout, "")
        for key in ("price: 275000", "gpus: 8", "life_years: 4", "watts: 10200", "kwh_price: 0.12", "input: 5.00"):
            name = key.split(":")[0]
            said = plan(*BOX, *EVEN, "--price", self.file(PRICES, (key, f"{name}: 0")), check=78).stderr
            self.assertIn("1 problem in the price file", said)
            self.assertRegex(said, rf"{name}: 0 is out of range; allowed: (above 0|at least 1)")
        self.assertIn("needs a recipe, or --serve", run("plan", check=64).stderr)

    def test_a_run_has_a_price(self):
        recipe = ROOT / "configs/recipes/llama3.1-8b-lora.yaml"
        words = ["plan", recipe, "--gpu", "h100", "--price", PRICES, "train.max_steps=100", "data.train=/absent"]
        self.assertRegex(run(*words, check=0).stdout, r"(?m)^cost: [\d.]+ GPU-hours at [\d.]+ USD = ")
        plan = json.loads(run(*words, "--json", check=0).stdout)
        time, cost = plan["time"], plan["cost"]
        self.assertAlmostEqual(cost["gpu_hours"], time["run_seconds"] / 3600, places=6)
        self.assertAlmostEqual(cost["cost"], cost["gpu_hours"] * cost["gpu_hour_price"], places=6)
        trained = 100 * time["trained_tokens_per_step"] / 1e6
        self.assertAlmostEqual(cost["cost_a_million_trained_tokens"], cost["cost"] / trained, places=6)

    def test_the_best_layout_of_so_many_gpus(self):
        recipe = ROOT / "configs/recipes/llama3.1-8b-lora.yaml"
        search = ["plan", recipe, "--gpus", "1..4", "--gpu", "h200"]
        text = run(*search, check=0).stdout
        for words in ("the most tokens a second and GPU:", "the best of each number of GPUs:", "parallel.tp=1"):
            self.assertIn(words, text)
        found = json.loads(run(*search, "--json", check=0).stdout)
        self.assertEqual([best["gpus"] for best in found["by_gpus"]], [1, 2, 4])
        again = run("plan", recipe, *found["fastest"][0]["overrides"].split(), "--gpu", "h200", "--json", check=0)
        self.assertAlmostEqual(
            json.loads(again.stdout)["time"]["step_seconds"], found["fastest"][0]["step_seconds"], places=9
        )
        self.assertIn("needs --gpu", run("plan", recipe, "--gpus", 8, check=64).stderr)
        self.assertIn("leave --ranks, --all", run(*search, "--ranks", 8, check=64).stderr)
        self.assertIn("knows no GPU", run("plan", recipe, "--gpus", 8, "--gpu", "abacus", check=64).stderr)
        self.assertIn("--gpus 8..4", run("plan", recipe, "--gpus", "8..4", "--gpu", "h100", check=64).stderr)


if __name__ == "__main__":
    unittest.main()
