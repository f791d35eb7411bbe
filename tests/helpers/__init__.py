"""What several tests share: small surrogates, made-up data, analytic oracles."""
