"""How the option formulas are computed: kernels, series and how they are called."""
