"""The evaluation room: data sets scored through the engine. Knows engines and answers, not models' insides."""
