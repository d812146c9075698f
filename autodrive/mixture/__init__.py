"""What a student is trained on: balancing, visit order, clip trees and the loaders that yield them."""
