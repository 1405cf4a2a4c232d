"""Strategies: examples to a Solution, one record and one function each. None of them can reach the test set."""

from rung.strategies.registry import REPAIRED as REPAIRED
from rung.strategies.registry import SHORTENED as SHORTENED
from rung.strategies.registry import STRATEGIES as STRATEGIES
from rung.strategies.registry import Cost as Cost
from rung.strategies.registry import Need as Need
from rung.strategies.registry import Strategy as Strategy
from rung.strategies.registry import Texts as Texts
from rung.strategies.registry import begun_from as begun_from
from rung.strategies.registry import function_of as function_of
from rung.strategies.registry import long_form as long_form
from rung.strategies.registry import register_strategy as register_strategy
from rung.strategies.registry import strategy_of as strategy_of
