import unittest

from sums import total


class Total(unittest.TestCase):
    def test_prices_are_added(self):
        self.assertEqual(total([1, 2, 3]), 6)

    def test_a_discount_is_taken_off(self):
        self.assertEqual(total([50, 50], discount=0.25), 75)


if __name__ == "__main__":
    unittest.main()
