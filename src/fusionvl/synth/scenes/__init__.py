"""What kinds draw with: the graph of a scene, its parts, its pictures, and English for it. Knows no kinds."""
